/** Requests to the gateway that served this page, with the key where one is given, and what it says when it refuses. */

import type { Problem } from "./types";

const KEY = "packetfs:key";

/** An answer that is a problem, or none at all. */
export class Refused extends Error {
  override readonly name = "Refused";

  constructor(
    readonly problem: Problem,
    readonly retryAfterS: number | null,
  ) {
    super(problem.detail);
  }
}

/** The key, which this tab keeps for as long as it lives. */
export const key = {
  get(): string {
    return sessionStorage.getItem(KEY) ?? "";
  },
  set(value: string): void {
    if (value === "") sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  },
};

/** Ask the gateway. Throws {@link Refused}, or what `fetch` throws where nobody answers. */
export async function ask(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = new Headers();
  if (key.get() !== "") headers.set("Authorization", `Bearer ${key.get()}`);
  if (body !== undefined) headers.set("Content-Type", "application/json");
  const response = await fetch(path, {
    method, headers, cache: "no-store", credentials: "omit", redirect: "error",
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  });
  if (response.ok) return response;
  throw new Refused(await problemOf(response), waitOf(response));
}

export async function json<T>(method: string, path: string, body?: unknown): Promise<T> {
  return (await (await ask(method, path, body)).json()) as T;
}

/** Yield the server-sent events of an answer, until it ends (WHATWG HTML, section 9.2). Comments come as "". */
export async function* events(response: Response): AsyncGenerator<readonly [name: string, data: string]> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "message";
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // A CR at the end may be half of a CRLF.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield [name, data.join("\n")];
          name = "message";
          data = [];
        } else if (line.startsWith(":")) yield ["", ""];
        else if (line.startsWith("event:")) name = line.slice(6).trimStart();
        else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Return what to tell of an error, whatever it is. */
export function problemFrom(error: unknown): Problem {
  if (error instanceof Refused) return error.problem;
  // What fetch throws differs from browser to browser, and says nothing that a person could use.
  const detail = error instanceof TypeError ? "the gateway does not answer" : error instanceof Error ? error.message : String(error);
  return { status: 0, error: "unreachable", detail };
}

async function problemOf(response: Response): Promise<Problem> {
  try {
    const told = (await response.json()) as Partial<Problem> | null;
    if (typeof told?.detail === "string") return { error: "", ...told, status: response.status, detail: told.detail };
  } catch {
    // Something between here and the gateway answered, with a page of its own.
  }
  return { status: response.status, error: "", detail: `the answer is ${response.status} without a reason` };
}

function waitOf(response: Response): number | null {
  const given = Number(response.headers.get("retry-after") ?? Number.NaN);
  return Number.isFinite(given) && given >= 0 ? given : null;
}
