/** What a handler needs of the core. */

export { parseNetwork, type Network } from "./addresses";
export { FRAME_BYTES } from "./blocks";
export { ERRORS, JobError, type Details, type ErrorType, type Fault } from "./errors";
export { execute, health } from "./executor";
export { Kernels, Plan } from "./kernels";
export * from "./names";
export type { BlockCache, BlockKey, Compute, Coordinator, Platform, ReplayGuard } from "./platform";
export { parseProgram, programToWire, type Op, type Program } from "./program";
export { serve } from "./server";
export { parseSettings, type Settings, type Variables } from "./settings";
export { MemoryReplayGuard, SIGNATURE_HEADER, Verifier, WINDOW_S, type SigningKey } from "./signature";
export { failure, jobIdOf, parseRequest, requestToWire, success, type Answer, type ComputeRequest } from "./wire";
