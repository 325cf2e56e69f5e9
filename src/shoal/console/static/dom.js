// The few ways in which this page writes into its document. What comes from elsewhere becomes text, never markup.

export const byId = (id) => document.getElementById(id);

/** An element with a class, children (texts or elements) and attributes. */
export function element(name, className = "", children = [], attributes = {}) {
  const made = document.createElement(name);
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Sets a text only if it is another one, so that screen readers and selections are left alone. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

/**
 * Brings a table's rows up to date in place: what has the focus keeps it.
 *
 * @param body the tbody
 * @param items what the rows are of
 * @param keyOf an item's own name
 * @param cellsOf an item's cells: texts, or {text, className, href, title, node}; the first is the row's header
 */
export function fill(body, items, keyOf, cellsOf) {
  const columns = [...body.closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
  const old = [...body.rows];
  const before = new Map(old.map((row) => [row.dataset.key, row]));
  const uses = new Map();
  const rows = items.map((item) => {
    const use = (uses.get(keyOf(item)) ?? 0) + 1;
    uses.set(keyOf(item), use);
    const key = `${use} ${keyOf(item)}`; // items may share a name
    const row = before.get(key) ?? newRow(key, columns);
    cellsOf(item).forEach((cell, place) => fillCell(row.cells[place], cell));
    return row;
  });
  const kept = new Set(rows);
  for (const row of old) if (!kept.has(row)) row.remove();
  rows.forEach((row, place) => {
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
  });
  body.closest("table").hidden = items.length === 0;
}

function newRow(key, columns) {
  const row = element("tr", "", columns.map((column, place) =>
    element(place ? "td" : "th", "", [], { "data-column": column, ...(place ? {} : { scope: "row" }) })));
  row.dataset.key = key;
  return row;
}

function fillCell(node, cell) {
  const { text = "", className = "", title = "", href = "", node: child } = typeof cell === "object" ? cell : { text: cell };
  if (node.className !== className) node.className = className;
  if (node.title !== title) node.title = title;
  if (child) {
    if (node.firstChild !== child) node.replaceChildren(child);
  } else if (href) {
    const link = node.querySelector("a") ?? node.appendChild(element("a"));
    if (link.getAttribute("href") !== href) link.setAttribute("href", href);
    say(link, text);
  } else {
    say(node, text);
  }
}
