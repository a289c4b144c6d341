/** A `.wasm` file is imported as a compiled module: wrangler's rule for the ending. */
declare module "*.wasm" {
  const module: WebAssembly.Module;
  export default module;
}
