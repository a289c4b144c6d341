/** The built `packetfs.mjs`, which lies beside the built page. */
export * from "../src";
