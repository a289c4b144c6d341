/**
 * The colour of a substrate: the same for the same name, here and tomorrow.
 *
 * The eight colours, `--s0` to `--s7` of the style, were searched for: any two are apart by ΔE 27 or more (CIE76) for full
 * colour vision, protanopia, deuteranopia and tritanopia alike (Machado 2009), and each stands 3:1 from its ground in
 * both schemes. Where there are more than eight substrates, the others are striped.
 */

const COLOURS = 8;
const KNOWN = ["local", "fly", "aws_lambda", "cloudflare", "vercel", "cloudrun", "browser"] as const;

export interface Look {
  readonly colour: string;
  readonly striped: boolean;
}

const places = new Map<string, number>();

/** Give each of these names its place, if it has none; those that are here first keep theirs. */
export function know(names: readonly string[]): void {
  // By name and not by position, so that a substrate more does not recolour the rest.
  for (const name of [...names].sort()) if (!places.has(name)) places.set(name, free(name));
}

export function lookOf(name: string): Look {
  know([name]);
  const place = places.get(name) ?? 0;
  return { colour: `--s${place % COLOURS}`, striped: place % (2 * COLOURS) >= COLOURS };
}

/** Return what a variable of the style is now. */
export function colour(variable: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
}

function free(name: string): number {
  const taken = new Set(places.values());
  const known = KNOWN.findIndex((one) => one === name);
  const wanted = known >= 0 ? known : hash(name) % COLOURS;
  for (let round = 0; ; round += COLOURS) {
    for (let step = 0; step < COLOURS; step += 1) {
      const place = round + ((wanted + step) % COLOURS);
      if (!taken.has(place)) return place;
    }
  }
}

/** FNV-1a over UTF-16 units, 32 bits. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) value = Math.imul(value ^ text.charCodeAt(at), 0x01000193) >>> 0;
  return value;
}
