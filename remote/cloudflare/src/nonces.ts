/**
 * The nonces of signed requests, in Durable Objects: the platform's `ReplayGuard`, for all colos and over restarts.
 *
 * A nonce is in one object whichever colo its request came to, so that no second colo takes it. Only what is signed
 * gets here. What an object cannot remember, it does not admit; the same holds where no object answers.
 */

import { DurableObject } from "cloudflare:workers";
import type { ReplayGuard } from "../../edge/src/platform";
import { count, type Env } from "./env";
import { Generations } from "./generations";
import { shardOf } from "./shards";

/** Of one object. All sixteen take 320,000, and a nonce stays for two to three minutes: 1,800 requests a second. */
const MAX_NONCES = 20_000;
/** Signatures are accepted for two minutes at most, so that three or four tables are there at a time. */
const TABLE_MS = 60_000;

type Admission = Awaited<ReturnType<ReplayGuard["admit"]>>;

export class NonceShard extends DurableObject<Env> {
  readonly #nonces: Generations;
  readonly #max: number;
  /** Were the clock set back, what was dropped would be new again. */
  #latest = 0;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#max = count(env.PACKETFS_MAX_NONCES, MAX_NONCES);
    this.#nonces = new Generations(ctx.storage.sql, "nonces", "", TABLE_MS, this.#max);
  }

  async admit(nonce: string, until: number): Promise<Admission> {
    const now = (this.#latest = Math.max(this.#latest, Date.now()));
    if (until * 1000 < now || this.#nonces.find(nonce, now) !== null) {
      return "used";
    }
    if (this.#nonces.rows >= this.#max) {
      this.#nonces.drop(now);
      if (this.#nonces.rows >= this.#max) {
        return "full";
      }
    }
    if (this.#nonces.add(now, nonce, until * 1000)) {
      this.#nonces.drop(now);
      await this.#arm();
    }
    return "new";
  }

  override async alarm(): Promise<void> {
    this.#nonces.drop(Date.now());
    await this.#arm();
  }

  /** An object that is asked no more has to be woken to drop its last tables. */
  async #arm(): Promise<void> {
    const at = this.#nonces.dropAt;
    if (at !== null && (await this.ctx.storage.getAlarm()) === null) {
      await this.ctx.storage.setAlarm(Math.max(at, Date.now()) + TABLE_MS);
    }
  }
}

export function replayGuard(shards: Env["NONCES"]): ReplayGuard {
  return {
    async admit(nonce: string, until: number): Promise<Admission> {
      try {
        return await shards.getByName(String(shardOf(nonce))).admit(nonce, until);
      } catch (error) {
        console.error("a nonce could not be remembered", String(error));
        return "full";
      }
    },
  };
}
