/** The client of a page: computes here, submits to a gateway, lends this browser to one. */

import { VERSION, type Answer, type Variables } from "../../edge/src";
import { DEFAULT_BACKOFF, type Backoff } from "./backoff";
import { askConsent } from "./consent";
import { fetchFile, kernelsFile } from "./files";
import { Gateway, type JobStatus, type SubmitOptions } from "./jobs";
import { Lending, type LendingState } from "./lending";
import { checkedLimits, Watch, type Limits, type PauseReason } from "./limits";
import { Pool, poolSize, type PoolOptions as AllPoolOptions, type RunOptions } from "./pool";

type PoolOptions = Omit<AllPoolOptions, "onAlive">;

export interface ConnectOptions {
  /** The gateway's address; this page's origin by default. */
  readonly gateway?: string;
  /** An API key of the gateway, for `submit`. Whoever can read the page can read it. */
  readonly key?: string;
  /** Jobs at once, 1 to 8 and no more than processors; one processor is left free by default. */
  readonly slots?: number;
  /** Asks whether this browser may be lent; by default a dialog does. */
  readonly consent?: () => boolean | Promise<boolean>;
  readonly limits?: Limits;
  /** Variables of the core, such as `PACKETFS_ALLOW_PRIVATE_SOURCES`, which opens this computer's networks to jobs. */
  readonly variables?: Variables;
  /** The folder of the built files; where this script came from by default. */
  readonly files?: string;
  /** Of the connection to a hub. */
  readonly backoff?: Partial<Backoff>;
}

export interface LendOptions {
  /** A ticket of the hub, or what gets one for each connection. */
  readonly ticket: string | (() => string | Promise<string>);
}

/** What was computed here since `connect`. */
export interface Metrics {
  readonly jobs: number;
  readonly failures: number;
  readonly bytes: number;
  /** Seconds of jobs, added up: two at once for a second are two. */
  readonly seconds: number;
  readonly running: number;
}

/** Nobody agreed to lend this browser. */
export class ConsentRefused extends Error {
  constructor() {
    super("lending this browser was not agreed to");
    this.name = "ConsentRefused";
  }
}

/**
 * Events: `change` when a state, a pause or a number of `metrics` changed; `job` after each job, with
 * `detail: {answer, seconds}`. None of the two can be cancelled.
 */
export class Client extends EventTarget {
  readonly version = VERSION;
  readonly slots: number;
  readonly kernel: string;
  readonly #pool: Pool;
  readonly #gateway: Gateway;
  readonly #watch: Watch;
  readonly #consent: () => boolean | Promise<boolean>;
  readonly #backoff: Backoff;
  readonly #counts = { jobs: 0, failures: 0, bytes: 0, seconds: 0, running: 0 };
  #lending: Lending | null = null;

  private constructor(pool: PoolOptions, kernel: string, limits: Limits, options: ConnectOptions) {
    super();
    this.slots = pool.size;
    this.kernel = kernel;
    this.#pool = new Pool({ ...pool, onAlive: () => this.#lending?.alive() });
    this.#gateway = new Gateway(new URL(options.gateway ?? "/", location.href), options.key ?? null);
    this.#consent = options.consent ?? askConsent;
    this.#backoff = { ...DEFAULT_BACKOFF, ...options.backoff };
    this.#watch = new Watch(limits, () => this.#reconsider());
  }

  /** Load the kernels, and make a client. Nothing is sent to the gateway yet. */
  static async connect(options: ConnectOptions, here: string): Promise<Client> {
    const base = new URL(options.files ?? here, location.href).href;
    const slots = poolSize(Math.min(options.slots ?? Infinity, options.limits?.maxJobs ?? Infinity));
    const limits = checkedLimits(options.limits ?? {}, slots);
    const name = kernelsFile();
    const [script, wasm] = await Promise.all([workerScript(base), fetchFile(name, base)]);
    const module = await WebAssembly.compile(await wasm.arrayBuffer());
    const { maxBytesPerJob, maxMBPerSecond } = limits;
    const bound = maxBytesPerJob === undefined ? {} : { PACKETFS_MAX_RANGE_BYTES: String(Math.floor(maxBytesPerJob)) };
    const variables = { ...options.variables, ...bound };
    const bytesPerSecond = maxMBPerSecond === undefined ? null : maxMBPerSecond * 1e6;
    const pool = { script, module, size: slots, variables, bytesPerSecond };
    return new Client(pool, name === "kernels-simd.wasm" ? "wasm-simd" : "wasm", limits, options);
  }

  get metrics(): Metrics {
    return { ...this.#counts };
  }

  /** `idle` until `lend` is called. */
  get state(): LendingState | "idle" {
    return this.#lending?.state ?? "idle";
  }

  /** Why no lent work is taken just now; empty while it is. */
  get pauses(): readonly PauseReason[] {
    return this.#watch.reasons;
  }

  /** Compute here: a request of `POST /compute`, to its answer. Rejects only when `signal` aborts. */
  async execute(request: unknown, options: RunOptions = {}): Promise<Answer> {
    const startedMs = performance.now();
    this.#counts.running += 1;
    this.#tell("change");
    let answer: Answer | null = null;
    try {
      answer = await this.#pool.run(request, options);
      return answer;
    } finally {
      this.#counts.running -= 1;
      this.#count(answer, (performance.now() - startedMs) / 1000);
    }
  }

  /** Submit a job to the gateway; resolves to its status when it is done, rejects with `JobFailed` otherwise. */
  submit(program: unknown, policy: unknown = null, options: SubmitOptions = {}): Promise<JobStatus> {
    return this.#gateway.submit(program, policy, options);
  }

  /** Lend this browser, once that is agreed to; resolves when the hub has welcomed it. */
  async lend({ ticket }: LendOptions): Promise<void> {
    if (this.#lending !== null && this.#lending.state !== "left") throw new Error("this browser is already lent");
    if ((await this.#consent()) !== true) throw new ConsentRefused();
    this.#lending?.leave("it was lent again");
    this.#lending = new Lending(
      {
        url: this.#gateway.hub,
        ticket,
        kernel: this.kernel,
        slots: this.slots,
        backoff: this.#backoff,
        run: (request, options) => this.execute(request, options),
        changed: () => this.#tell("change"),
      },
      this.pauses.length > 0,
    );
    await this.#lending.joined;
  }

  /** Take no new lent work; what runs is finished. */
  pause(): void {
    this.#watch.ask(true);
  }

  resume(): void {
    this.#watch.ask(false);
  }

  /** Stop lending; lent work that runs is cancelled. */
  leave(): void {
    this.#lending?.leave();
  }

  /** Leave, and end the Workers. */
  close(): void {
    this.leave();
    this.#watch.close();
    this.#pool.close();
  }

  #reconsider(): void {
    this.#lending?.pause(this.pauses.length > 0);
    this.#tell("change");
  }

  /** A cancelled job counts as none. */
  #count(answer: Answer | null, seconds: number): void {
    if (answer !== null) {
      this.#counts.jobs += 1;
      this.#counts.seconds += seconds;
      if (answer.success) this.#counts.bytes += answer.bytesProcessed;
      else this.#counts.failures += 1;
      this.dispatchEvent(new CustomEvent("job", { detail: { answer, seconds } }));
    }
    this.#tell("change");
  }

  #tell(event: "change"): void {
    this.dispatchEvent(new Event(event));
  }
}

/** A Worker's script must be of the page's origin; from elsewhere, such as a CDN, it comes as a checked blob. */
async function workerScript(base: string): Promise<string> {
  const url = new URL("worker.js", base);
  if (url.origin === location.origin) return url.href;
  const text = await (await fetchFile("worker.js", base)).text();
  return URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
}
