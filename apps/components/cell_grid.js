// A heat map of cells that can be clicked and walked through with the keyboard.
//
// Streamlit calls the exported function again whenever the data change, on the same elements, so
// handlers are assigned, never added. What is drawn comes from `data` only, through fillText and
// textContent; no text from outside ever becomes markup.
//
// Keys: arrows move, Enter or Space opens the cell, Escape clears the cursor, + and - zoom.

const FONT = 11, TOP = 4, GAP = 1, WIDEST_LABEL = 96, MOST_ROWS_PX = 420;
const LINES = "#dcdcdc";
const NOT_COMPUTED = 0, VALUE = 1, UNDEFINED = 2;
const moods = new WeakMap(); // per canvas: cursor cell and zoom, kept across reruns

export default function ({ data, parentElement, setTriggerValue }) {
  const canvas = parentElement.querySelector("canvas");
  const box = parentElement.querySelector(".scroll");
  const tip = parentElement.querySelector(".tip");
  const live = parentElement.querySelector(".live");
  const mood = moods.get(canvas) ?? { cursor: null, zoom: 1 };
  moods.set(canvas, mood);
  const grid = decode(data);
  if (mood.cursor && (mood.cursor[0] >= grid.rows || mood.cursor[1] >= grid.cols)) mood.cursor = null;

  let place = null;
  const draw = () => { place = paint(canvas, box, grid, mood); };
  const [open, gone] = surely(data, cell => setTriggerValue("cell", cell));
  const say = cell => { live.textContent = describe(grid, cell); };

  canvas.setAttribute("aria-label", data.label);
  canvas.onclick = event => {
    const cell = cellAt(event, canvas, place, grid);
    if (!cell) return;
    mood.cursor = cell; draw(); say(cell); open(cell);
  };
  canvas.onmousemove = event => hover(event, canvas, box, tip, place, grid);
  canvas.onmouseleave = () => { tip.style.visibility = "hidden"; };
  canvas.onkeydown = event => {
    if (walk(event, grid, mood, open)) {
      event.preventDefault(); draw();
      if (mood.cursor) { say(mood.cursor); reveal(box, place, mood.cursor); }
    }
  };
  parentElement.querySelector(".png").onclick = () => savePng(canvas, data.label);
  canvas.onblur = () => { tip.style.visibility = "hidden"; draw(); };
  canvas.onfocus = draw;

  draw();
  const size = new ResizeObserver(draw);
  size.observe(box);
  const host = parentElement.host ?? parentElement; // theme variables stand on an element above
  const theme = new MutationObserver(draw);
  for (let node = host; node; node = node.parentElement)
    theme.observe(node, { attributes: true, attributeFilter: ["style", "class"] });
  return () => { size.disconnect(); theme.disconnect(); gone(); };
}

// The picture as it is on the screen, on its own background, saved by the browser.
function savePng(canvas, label) {
  const copy = document.createElement("canvas");
  copy.width = canvas.width; copy.height = canvas.height;
  const g = copy.getContext("2d");
  g.fillStyle = getComputedStyle(canvas).getPropertyValue("--st-background-color").trim() || "#fff";
  g.fillRect(0, 0, copy.width, copy.height);
  g.drawImage(canvas, 0, 0);
  const link = document.createElement("a");
  link.download = `${label.split(":")[0].replace(/[^\w]+/g, "-").slice(0, 60)}.png`;
  link.href = copy.toDataURL("image/png");
  link.click();
}

function decode(data) {
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const floats = text => (text ? new Float32Array(bytes(text).buffer) : null);
  return {
    rows: data.row_labels.length, cols: data.col_labels.length,
    values: floats(data.values), state: bytes(data.state),
    low: floats(data.ci_low), high: floats(data.ci_high),
    dots: data.dots ? bytes(data.dots) : null, faded: data.faded ? bytes(data.faded) : null,
    rowLabels: data.row_labels, colLabels: data.col_labels, rowName: data.row_name,
    colName: data.col_name, numbers: data.numbers,
    up: data.row_order === "up", limits: data.limits, stops: data.stops.map(channels),
    signed: data.signed, selected: data.selected, measured: data.measured, gap: data.gap,
  };
}

function paint(canvas, box, grid, mood) {
  const style = getComputedStyle(canvas);
  const theme = name => style.getPropertyValue(`--st-${name}`).trim();
  const text = theme("text-color") || "#222", back = theme("background-color") || "#fff";
  const g = canvas.getContext("2d");
  const font = `${FONT}px ${theme("font") || "sans-serif"}`;
  g.font = font;

  const left = 10 + Math.max(...grid.rowLabels.map(l => g.measureText(l).width), 8) + FONT;
  const foot = Math.min(WIDEST_LABEL, Math.max(...grid.colLabels.map(l => g.measureText(l).width), 8));
  const width = Math.max(80, Math.floor(box.clientWidth * mood.zoom));
  // Labels are turned by 60 degrees: they reach down by sin 60 and stick out to the left by cos 60.
  // While a page goes, its boxes may be narrower than the labels: never less than a pixel.
  const cellW = Math.max(1, (width - left - 2) / grid.cols);
  const flat = foot + 4 <= cellW; // short labels, such as heads, need not be turned
  const bottom = flat ? 3 * FONT : Math.ceil(foot * 0.87 + FONT + 4);
  const cellH = Math.max(5, Math.min(26, Math.max(13, MOST_ROWS_PX / grid.rows / 1.6), MOST_ROWS_PX / grid.rows));
  const height = Math.ceil(TOP + cellH * grid.rows + bottom);

  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = font; g.textBaseline = "middle";

  const place = { left, cellW, cellH, flat };
  g.fillStyle = LINES; // shows between the cells, so that white ones can be told apart
  g.fillRect(left - GAP, TOP - GAP, cellW * grid.cols + GAP, cellH * grid.rows + GAP);
  const patterns = [hatch(g, ratio), null, dotted(g, ratio)];
  for (let row = 0; row < grid.rows; row++)
    for (let col = 0; col < grid.cols; col++) fillCell(g, grid, place, patterns, row, col, back);
  drawLabels(g, grid, place, text);
  if (grid.selected) outline(g, grid, place, grid.selected, text, back, 2);
  if (mood.cursor && canvas.matches(":focus-visible"))
    outline(g, grid, place, mood.cursor, theme("primary-color") || "#2166ac", back, 2, [3, 2]);
  return place;
}

const corner = (grid, place, row, col) => [
  place.left + col * place.cellW,
  TOP + (grid.up ? grid.rows - 1 - row : row) * place.cellH,
];

function fillCell(g, grid, place, patterns, row, col, back) {
  const i = row * grid.cols + col, state = grid.state[i];
  const [x, y] = corner(grid, place, row, col);
  const gap = place.cellW > 6 && place.cellH > 6 ? GAP : 0;
  const w = place.cellW - gap, h = place.cellH - gap;
  if (state === VALUE) {
    let color = colorOf(grid, grid.values[i]);
    if (grid.faded?.[i]) color = color.map(c => Math.round(255 - (255 - c) * 0.2));
    g.fillStyle = `rgb(${color.join()})`;
    g.fillRect(x, y, w, h);
    const beyond = grid.values[i] < grid.limits[0] * 1.000001 || grid.values[i] > grid.limits[1] * 1.000001;
    if (beyond && w > 5) { g.strokeStyle = "#000"; g.setLineDash([]); g.lineWidth = 1; g.strokeRect(x + 1.5, y + 1.5, w - 3, h - 3); }
    if (grid.numbers && w >= 30 && h >= 13) {
      g.fillStyle = ink(color); g.textAlign = "center"; g.globalAlpha = grid.faded?.[i] ? 0.55 : 1;
      g.fillText(short(grid.values[i]), x + w / 2, y + h / 2); g.globalAlpha = 1;
    }
    if (grid.dots?.[i]) { g.fillStyle = ink(color); g.beginPath(); g.arc(x + w / 2, y + h / 2, 1.8, 0, 7); g.fill(); }
  } else if (state === NOT_COMPUTED || state === UNDEFINED) {
    g.fillStyle = "#e4e4e4"; g.fillRect(x, y, w, h);
    g.fillStyle = patterns[state]; g.fillRect(x, y, w, h);
  } else { g.fillStyle = back; g.fillRect(x, y, w, h); }
}

function drawLabels(g, grid, place, color) {
  g.fillStyle = color; g.textAlign = "right";
  const everyRow = Math.ceil((FONT + 1) / place.cellH);
  for (let row = 0; row < grid.rows; row += everyRow)
    g.fillText(grid.rowLabels[row], place.left - 5, corner(grid, place, row, 0)[1] + place.cellH / 2);
  g.save();
  g.translate(FONT * 0.6, TOP + (grid.rows * place.cellH) / 2); g.rotate(-Math.PI / 2);
  g.textAlign = "center"; g.globalAlpha = 0.75; g.fillText(grid.rowName, 0, 0);
  g.restore();
  const y = TOP + grid.rows * place.cellH + 6;
  if (place.flat) {
    g.textAlign = "center";
    for (let col = 0; col < grid.cols; col++)
      g.fillText(grid.colLabels[col], place.left + (col + 0.5) * place.cellW, y + FONT / 2);
    g.globalAlpha = 0.75; g.fillText(grid.colName.replace("_", " "), place.left + (grid.cols * place.cellW) / 2, y + 1.7 * FONT);
    g.globalAlpha = 1;
    return;
  }
  const everyCol = Math.ceil((FONT + 2) / place.cellW);
  for (let col = 0; col < grid.cols; col += everyCol) {
    g.save();
    g.translate(place.left + (col + 0.5) * place.cellW + 2, y); g.rotate(-Math.PI / 3);
    g.textAlign = "right";
    g.fillText(fitted(g, grid.colLabels[col], WIDEST_LABEL), 0, 0);
    g.restore();
  }
}

function fitted(g, label, width) {
  if (g.measureText(label).width <= width) return label;
  const letters = [...label];
  while (letters.length > 1 && g.measureText(`${letters.join("")}…`).width > width) letters.pop();
  return `${letters.join("")}…`;
}

function outline(g, grid, place, [row, col], color, back, width, dash = []) {
  const [x, y] = corner(grid, place, row, col);
  g.setLineDash([]); g.lineWidth = width + 2; g.strokeStyle = back;
  g.strokeRect(x, y, place.cellW - 1, place.cellH - 1);
  g.setLineDash(dash); g.lineWidth = width; g.strokeStyle = color;
  g.strokeRect(x, y, place.cellW - 1, place.cellH - 1);
  g.setLineDash([]);
}

function tile(g, ratio, size, draw) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = Math.round(size * ratio);
  const t = canvas.getContext("2d");
  t.scale(ratio, ratio); draw(t, size);
  const pattern = g.createPattern(canvas, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / ratio)); // the pattern lives in canvas pixels
  return pattern;
}

const hatch = (g, ratio) => tile(g, ratio, 6, (t, s) => {
  t.strokeStyle = "#9a9a9a"; t.lineWidth = 1;
  for (const d of [-s, 0, s]) { t.beginPath(); t.moveTo(d, s); t.lineTo(d + s, 0); t.stroke(); }
});

const dotted = (g, ratio) => tile(g, ratio, 6, (t, s) => {
  t.fillStyle = "#777"; t.beginPath(); t.arc(s / 2, s / 2, 1, 0, 7); t.fill();
});

function colorOf(grid, value) {
  const [low, high] = grid.limits, last = grid.stops.length - 1;
  const share = Math.min(Math.max((value - low) / (high - low), 0), 1) * last;
  const below = Math.min(Math.floor(share), last - 1), rest = share - below;
  return grid.stops[below].map((a, k) => Math.round(a + (grid.stops[below + 1][k] - a) * rest));
}

const short = v => {
  const size = Math.abs(v), text = size.toFixed(size < 9.995 ? 2 : 1);
  return Number(text) === 0 ? "0" : (v < 0 ? "−" : "") + text;
};

const channels = c => [1, 3, 5].map(i => parseInt(c.slice(i, i + 2), 16));
const ink = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff");

function cellAt(event, canvas, place, grid) {
  const edge = canvas.getBoundingClientRect();
  const col = Math.floor((event.clientX - edge.left - place.left) / place.cellW);
  const down = Math.floor((event.clientY - edge.top - TOP) / place.cellH);
  if (col < 0 || col >= grid.cols || down < 0 || down >= grid.rows) return null;
  return [grid.up ? grid.rows - 1 - down : down, col];
}

function describe(grid, [row, col]) {
  const i = row * grid.cols + col;
  const head = grid.rowName === "layer" && grid.colName === "head" && /^\d+$/.test(grid.colLabels[col]);
  const place = head
    ? `L${grid.rowLabels[row]}H${grid.colLabels[col]}`
    : `${grid.rowName} ${grid.rowLabels[row]}, ${grid.colLabels[col]}`;
  if (grid.state[i] === NOT_COMPUTED) return `${place}: ${grid.gap}`;
  if (grid.state[i] !== VALUE) return `${place}: ${grid.state[i] === UNDEFINED ? "undefined" : "not applicable"}`;
  const shown = v => {
    const size = Math.abs(v).toFixed(4);
    return (Number(size) === 0 ? "" : v < 0 ? "−" : grid.signed ? "+" : "") + size;
  };
  const band = grid.low && grid.high ? `\n95 % interval ${shown(grid.low[i])} to ${shown(grid.high[i])}` : "";
  return `${place}: ${grid.measured} ${shown(grid.values[i])}${band}`;
}

function hover(event, canvas, box, tip, place, grid) {
  const cell = place && cellAt(event, canvas, place, grid);
  if (!cell) { tip.style.visibility = "hidden"; return; }
  tip.textContent = describe(grid, cell);
  const frame = box.getBoundingClientRect();
  const x = event.clientX - frame.left, y = event.clientY - frame.top;
  tip.style.left = `${Math.max(0, Math.min(x + 12, frame.width - tip.offsetWidth))}px`;
  tip.style.top = `${y + 16}px`;
  tip.style.visibility = "visible";
}

function walk(event, grid, mood, open) {
  const [row, col] = mood.cursor ?? grid.selected ?? [0, 0];
  const fresh = !mood.cursor && !grid.selected; // the first arrow only shows where the cursor is
  const step = (dr, dc) => {
    const at = fresh ? [row, col] : [row + (grid.up ? -dr : dr), col + dc];
    mood.cursor = [Math.min(Math.max(at[0], 0), grid.rows - 1), Math.min(Math.max(at[1], 0), grid.cols - 1)];
    return true;
  };
  switch (event.key) {
    case "ArrowUp": return step(-1, 0);
    case "ArrowDown": return step(1, 0);
    case "ArrowLeft": return step(0, -1);
    case "ArrowRight": return step(0, 1);
    case "Enter": case " ": if (mood.cursor) open(mood.cursor); return true;
    case "Escape": mood.cursor = null; return true;
    case "+": case "=": mood.zoom = Math.min(mood.zoom * 1.5, 8); return true;
    case "-": mood.zoom = Math.max(mood.zoom / 1.5, 1); return true;
    default: return false;
  }
}

function reveal(box, place, [, col]) {
  const x = place.left + col * place.cellW;
  if (x < box.scrollLeft + place.left) box.scrollLeft = x - place.left;
  else if (x + place.cellW > box.scrollLeft + box.clientWidth) box.scrollLeft = x + place.cellW - box.clientWidth;
}
