/** How Vercel imports WebAssembly: compiled at build time. `build.mjs` makes it so, or inlines the bytes. */
declare module "*.wasm?module" {
  const module: WebAssembly.Module;
  export default module;
}
