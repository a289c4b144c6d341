/** Server-sent events as they come through `fetch` (HTML, section 9.2.6): only their data, whatever their name. */

/** Longest event that is taken. */
const MAX_CHARS = 1 << 20;

/** The data of each event, until the stream ends. */
export async function* eventsIn(response: Response): AsyncGenerator<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    while (reader !== undefined) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      // A CR at the end may be the first half of a CRLF.
      const held = text.endsWith("\r") ? "\r" : "";
      text = text.slice(0, text.length - held.length).replace(/\r\n?/g, "\n");
      const blocks = text.split("\n\n");
      text = blocks.pop()! + held;
      if (text.length > MAX_CHARS) throw new Error("the gateway sent an event without an end");
      for (const block of blocks) {
        const data = dataOf(block);
        if (data !== "") yield data;
      }
    }
  } finally {
    reader?.cancel().catch(() => undefined);
  }
}

function dataOf(block: string): string {
  const lines = block.split("\n").filter((line) => line === "data" || line.startsWith("data:"));
  return lines.map((line) => line.slice("data:".length).replace(/^ /, "")).join("\n");
}
