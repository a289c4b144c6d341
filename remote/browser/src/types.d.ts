/** What `build.mjs` puts into the scripts: the integrity (SRI) of each built file that another one loads. */
declare const PACKETFS_INTEGRITY: Readonly<Record<string, string>>;
