/**
 * Rows that are forgotten a table at a time, in a Durable Object's SQLite.
 *
 * Deleting a row is charged like writing one, and at $1 a million rows are the most of what a job costs; dropping a
 * table is charged with nothing. So rows go into the table that is open, a new one is opened when that is old or large
 * enough, and one is dropped when its last row has expired. All names of tables are made here, of digits.
 */

type Value = string | number;

interface Table {
  readonly name: string;
  readonly openedAt: number;
  rows: number;
  /** When its last row expires, in Unix milliseconds. */
  until: number;
}

export interface Found {
  readonly table: string;
  readonly row: Record<string, SqlStorageValue>;
}

export class Generations {
  /** Oldest first. */
  readonly #tables: Table[] = [];

  /** `columns` are those beside `key` and `until`. A table takes rows for `spanMs`, and at most `tableRows` of them. */
  constructor(
    private readonly sql: SqlStorage,
    private readonly prefix: string,
    private readonly columns: string,
    private readonly spanMs: number,
    private readonly tableRows: number,
  ) {
    const named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB ?";
    for (const { name } of sql.exec<{ name: string }>(named, `${prefix}_[0-9]*`).toArray()) {
      const { rows, until } = sql
        .exec<{ rows: number; until: number }>(`SELECT COUNT(*) AS rows, COALESCE(MAX(until), 0) AS until FROM ${name}`)
        .one();
      this.#tables.push({ name, openedAt: Number(name.slice(prefix.length + 1)), rows, until });
    }
    this.#tables.sort((one, other) => one.openedAt - other.openedAt);
  }

  get rows(): number {
    return this.#tables.reduce((sum, table) => sum + table.rows, 0);
  }

  get names(): string[] {
    return this.#tables.map((table) => table.name);
  }

  /** When the oldest table may be dropped; `null` where there is none. */
  get dropAt(): number | null {
    return this.#tables.length === 0 ? null : Math.min(...this.#tables.map((table) => table.until)) + 1;
  }

  /** The row of `key` that has not expired. */
  find(key: string, now: number): Found | null {
    for (const { name } of this.#tables.toReversed()) {
      const [row] = this.sql.exec(`SELECT * FROM ${name} WHERE key = ? AND until >= ?`, key, now).toArray();
      if (row !== undefined) return { table: name, row };
    }
    return null;
  }

  /** Add a row, in place of an expired one with its key. Returns whether a table was opened for it. */
  add(now: number, key: string, until: number, ...values: Value[]): boolean {
    let table = this.#tables.at(-1);
    const opens = table === undefined || now - table.openedAt >= this.spanMs || table.rows >= this.tableRows;
    if (table === undefined || opens) {
      const openedAt = Math.max(now, (table?.openedAt ?? 0) + 1);
      table = { name: `${this.prefix}_${openedAt}`, openedAt, rows: 0, until: 0 };
      const columns = ["key TEXT PRIMARY KEY", "until INTEGER NOT NULL", this.columns].filter(Boolean).join(", ");
      this.sql.exec(`CREATE TABLE ${table.name} (${columns}) WITHOUT ROWID`);
      this.#tables.push(table);
    }
    const marks = ", ?".repeat(values.length);
    this.sql.exec(`INSERT OR REPLACE INTO ${table.name} VALUES (?, ?${marks})`, key, until, ...values);
    table.rows += 1;
    table.until = Math.max(table.until, until);
    return opens;
  }

  /** Drop every table whose rows have all expired, and of the others the oldest until `maxRows` are left at most. */
  drop(now: number, maxRows = Infinity, before: (table: string) => void = () => {}): void {
    for (const table of [...this.#tables]) {
      if (table.until < now || this.rows > maxRows) {
        before(table.name);
        this.sql.exec(`DROP TABLE ${table.name}`);
        this.#tables.splice(this.#tables.indexOf(table), 1);
      }
    }
  }
}
