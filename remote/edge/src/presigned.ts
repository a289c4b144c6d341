/**
 * Presigned URLs: which part of one names the object, and which says only who may read it, and until when.
 *
 * The same rules as `packetfs_compute/presigned.py`: every signature of one object is another URL, so what is
 * kept by URL is kept by the part that stays. Nothing is decoded.
 */

/** What marks a presigned URL (AWS SigV4, GCS V4, AWS V2, GCS V2), and what then says nothing of the object. */
const SIGNERS: readonly { readonly marks: readonly string[]; readonly dropped: readonly string[] }[] = [
  {
    marks: ["x-amz-signature"],
    dropped: [
      "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-security-token", "x-amz-signature",
      "x-amz-signedheaders",
    ],
  },
  {
    marks: ["x-goog-signature"],
    dropped: [
      "x-goog-algorithm", "x-goog-credential", "x-goog-date", "x-goog-expires", "x-goog-signature",
      "x-goog-signedheaders",
    ],
  },
  {
    marks: ["signature", "awsaccesskeyid"],
    dropped: ["awsaccesskeyid", "expires", "signature", "x-amz-security-token"],
  },
  { marks: ["signature", "googleaccessid"], dropped: ["expires", "googleaccessid", "signature"] },
];

/** Return `url` without its fragment and the parameters of presigning: the same for every signature of one object. */
export function canonicalUrl(url: string): string {
  const [base, query] = cut(cut(url, "#")[0], "?");
  const path = base.includes("://") ? base.indexOf("/", base.indexOf("://") + 3) : -1;
  const origin = path < 0 ? base : base.slice(0, path);
  const parameters = query
    .split("&")
    .filter((parameter) => parameter !== "")
    .map((parameter) => ({ name: cut(parameter, "=")[0].toLowerCase(), parameter }));
  const names = new Set(parameters.map(({ name }) => name));
  const signers = SIGNERS.filter(({ marks }) => marks.every((mark) => names.has(mark)));
  const kept = parameters.filter(({ name }) => !signers.some(({ dropped }) => dropped.includes(name)));
  const rest = kept.map(({ parameter }) => parameter).join("&");
  return origin.toLowerCase() + base.slice(origin.length) + (rest === "" ? "" : `?${rest}`);
}

function cut(text: string, separator: string): [before: string, after: string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}
