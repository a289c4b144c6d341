/** The built files that others load: where they are, and that they are the ones of this build. */

/** Lets the kernels with 128-bit SIMD be told from those without: `(func (result v128) i32.const 0 i8x16.splat)`. */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);

/** The kernels that this browser can run. */
export function kernelsFile(): "kernels.wasm" | "kernels-simd.wasm" {
  return WebAssembly.validate(SIMD) ? "kernels-simd.wasm" : "kernels.wasm";
}

/** Fetch one of the built files beside `base`; a changed one is refused (SRI). */
export async function fetchFile(name: string, base: string): Promise<Response> {
  const integrity = PACKETFS_INTEGRITY[name] ?? "";
  const response = await fetch(new URL(name, base), { integrity, credentials: "omit", mode: "cors" });
  if (!response.ok) throw new Error(`${response.url} answered with status ${response.status}`);
  return response;
}
