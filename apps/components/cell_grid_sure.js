// Clicks that arrive. This file stands before cell_grid.js in one module.
//
// What is clicked while the page's script runs, or while a fragment is being replaced, may never
// reach Python. So every opened cell has a serial, Python answers with the last one it has seen
// (`data.seen`), and until then the cell is sent again, a few times, also by the same grid mounted
// anew. An old click must not fire later: any further pointer or key of the user ends the waiting,
// and so do other rows or columns in the grid's place, and time.

const AGAIN_MS = [1000, 1000, 2000, 4000], LONGEST_MS = 30000;

// One table for the page: the browser may load this module once per grid.
const opened = (globalThis.mechlabOpened ??= watching(new Map()));

function watching(table) {
  const forget = () => table.clear(); // heard before the grid's own handlers, which add anew
  for (const kind of ["pointerdown", "keydown", "popstate"]) window.addEventListener(kind, forget, true);
  return table;
}

// Called on every mount and whenever the data change. Returns what opens a cell, and what to call
// when the grid goes: its waiting click is then sent by what is mounted in its place, if anything is.
function surely(data, send) {
  const labels = JSON.stringify([data.row_labels, data.col_labels]);
  const waits = opened.get(data.key);
  if (waits && (waits.serial === data.seen || waits.labels !== labels)) opened.delete(data.key);
  else if (waits) waits.send = send;
  const open = cell => {
    const now = Date.now();
    const click = { key: data.key, cell, labels, send, since: now, tries: 0, serial: `${now}.${Math.random()}` };
    opened.set(data.key, click);
    deliver(click);
  };
  const gone = () => {
    const left = opened.get(data.key);
    if (left?.send === send) left.send = null;
  };
  return [open, gone];
}

function deliver(click) {
  if (opened.get(click.key) !== click) return; // arrived, replaced, or the user went on
  if (click.tries > AGAIN_MS.length || Date.now() - click.since > LONGEST_MS) { opened.delete(click.key); return; }
  if (click.send) { click.send([...click.cell, click.serial]); click.tries += 1; }
  setTimeout(deliver, AGAIN_MS[Math.max(click.tries - 1, 0)] ?? 1000, click);
}
