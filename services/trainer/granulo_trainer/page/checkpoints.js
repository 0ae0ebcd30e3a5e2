"use strict";
const data = JSON.parse(document.getElementById("content").textContent);
const $ = (id) => document.getElementById(id);

// Okabe and Ito: stay apart for most colour-blind readers.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#3c8fd0", "#d55e00", "#cc79a7"];
const TITLES = {
  validation_ap50: "AP50", validation_ap75: "AP75", validation_dsc: "F1", validation_count_error: "count error",
  heldout_ap50: "held-out AP50", heldout_ap75: "held-out AP75", heldout_dsc: "held-out F1",
  heldout_count_error: "held-out count error", label_free: "label-free",
};
const UNDER_TILES = ["validation_ap50", "validation_dsc", "label_free", "heldout_ap50", "loss"];
const MODES = ["off", "outline", "filled"];
const MAX_ZOOM = 40;

const titleOf = (name) => TITLES[name] || name.replace(/_/g, " ");
const lowIsGood = (name) => /loss|error/.test(name);
const written = (value) => (value === undefined ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3));

const figureNames = [...new Set(data.epochs.flatMap((item) => Object.keys(item.figures)))];
const state = {
  image: 0, mode: "outline", sort: "rank", picked: null,
  // What all tiles show: the point of the image in their middles, and the magnification over "fit".
  x: 0, y: 0, zoom: 1,
};

const tiles = data.epochs.map((item, place) => {
  const tile = document.createElement("figure");
  tile.className = "tile";
  tile.setAttribute("role", "option");
  tile.setAttribute("aria-selected", "false");
  tile.tabIndex = -1;
  tile.innerHTML = '<div class="picture"><canvas></canvas><div class="cross"></div></div><figcaption><div class="head">' +
    '<b></b><span class="count"></span><span class="rank"></span></div><dl></dl></figcaption>';
  tile.querySelector("b").textContent = `Epoch ${item.epoch}`;
  tile.querySelector(".rank").textContent = `no. ${place + 1}`;
  const list = tile.querySelector("dl");
  for (const name of UNDER_TILES.filter((known) => figureNames.includes(known))) list.append(row(name, item.figures[name]));
  return {
    item, place, tile, list, visible: false, paths: new Map(), picture: tile.querySelector(".picture"),
    canvas: tile.querySelector("canvas"), cross: tile.querySelector(".cross"), count: tile.querySelector(".count"),
  };
});
const tileOf = new Map(tiles.map((item) => [item.tile, item]));

function row(name, value) {
  const line = document.createElement("div");
  line.dataset.figure = name;
  line.innerHTML = "<dt></dt><dd></dd>";
  line.firstChild.textContent = titleOf(name);
  line.lastChild.textContent = written(value);
  return line;
}

// Images: halved again and again, so that small tiles of a large image are drawn fast and smooth.
const loaded = data.images.map(() => null);
function levelsOf(index) {
  if (loaded[index]) return loaded[index].levels;
  const entry = { levels: [] };
  loaded[index] = entry;
  const picture = new Image();
  picture.onload = () => {
    let level = picture, width = picture.naturalWidth, height = picture.naturalHeight;
    const levels = [level];
    while (Math.min(width, height) > 256) {
      width = Math.ceil(width / 2);
      height = Math.ceil(height / 2);
      const half = document.createElement("canvas");
      half.width = width;
      half.height = height;
      const context = half.getContext("2d");
      context.imageSmoothingQuality = "high";
      context.drawImage(level, 0, 0, width, height);
      levels.push(half);
      level = half;
    }
    entry.levels = levels;
    redraw();
  };
  picture.src = `data:image/jpeg;base64,${data.images[index].jpeg}`;
  return entry.levels;
}

// Outlines: int32 count, x, y, then int8 steps; a negative count goes on with the particle before.
// Colours follow the place, so that a particle has mostly the same one in every epoch.
function pathsOf(item) {
  if (item.paths.has(state.image)) return item.paths.get(state.image);
  const text = atob(item.item.outlines[state.image] || "");
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const paths = COLOURS.map(() => new Path2D());
  let path = paths[0];
  for (let place = 0; place < bytes.length;) {
    const count = view.getInt32(place, true);
    const points = [[view.getInt32(place + 4, true) + 0.5, view.getInt32(place + 8, true) + 0.5]];
    place += 12;
    for (let step = 1; step < Math.abs(count); step += 1, place += 2) {
      const [x, y] = points[step - 1];
      points.push([x + view.getInt8(place), y + view.getInt8(place + 1)]);
    }
    if (count > 0) path = paths[colourAt(points)];
    points.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  item.paths.set(state.image, paths);
  return paths;
}

function colourAt(points) {
  const middle = (axis) => (Math.min(...points.map((p) => p[axis])) + Math.max(...points.map((p) => p[axis]))) / 2;
  const cell = (axis) => Math.floor(middle(axis) / 40);
  return (cell(0) * 3 + cell(1) * 5 + cell(0) * cell(1)) % COLOURS.length;
}

// Drawing -----------------------------------------------------------------------------------
let due = false;
function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    for (const item of tiles) if (item.visible) draw(item);
  });
}

function scaleOf(picture) {
  const image = data.images[state.image];
  return Math.min(picture.clientWidth / image.width, picture.clientHeight / image.height) * state.zoom;
}

function draw(item) {
  const { canvas, picture } = item;
  const width = picture.clientWidth, height = picture.clientHeight;
  if (!width || !height) return;
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const image = data.images[state.image], scale = scaleOf(picture), context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.setTransform(scale * ratio, 0, 0, scale * ratio, (width / 2 - state.x * scale) * ratio, (height / 2 - state.y * scale) * ratio);
  const levels = levelsOf(state.image);
  if (levels.length) {
    const wanted = Math.floor(Math.log2(1 / (scale * ratio)) + 0.01);
    context.imageSmoothingEnabled = scale * ratio < 3;
    context.drawImage(levels[Math.max(0, Math.min(levels.length - 1, wanted))], 0, 0, image.width, image.height);
  }
  if (state.mode === "off") return;
  context.lineWidth = 1.6 / scale;
  context.lineJoin = "round";
  pathsOf(item).forEach((path, colour) => {
    context.strokeStyle = context.fillStyle = COLOURS[colour];
    if (state.mode === "filled") {
      context.globalAlpha = 0.45;
      context.fill(path, "evenodd");
      context.globalAlpha = 1;
    }
    context.stroke(path);
  });
}

// View --------------------------------------------------------------------------------------
function lookAt(x, y, zoom) {
  const image = data.images[state.image], picture = tiles[0].picture;
  state.zoom = Math.max(1, Math.min(MAX_ZOOM, zoom));
  const scale = scaleOf(picture);
  const clamp = (value, side, shown) => (shown >= side ? side / 2 : Math.max(shown / 2, Math.min(side - shown / 2, value)));
  state.x = clamp(x, image.width, picture.clientWidth / scale);
  state.y = clamp(y, image.height, picture.clientHeight / scale);
  document.body.classList.toggle("zoomed", state.zoom > 1);
  $("zoom").textContent = state.zoom === 1 ? "fit" : `${state.zoom.toFixed(state.zoom < 10 ? 1 : 0)} ×`;
  redraw();
}

function fit() {
  const image = data.images[state.image];
  lookAt(image.width / 2, image.height / 2, 1);
}

function zoomBy(factor, x = state.x, y = state.y) {
  const zoom = Math.max(1, Math.min(MAX_ZOOM, state.zoom * factor));
  const rest = state.zoom / zoom;
  lookAt(x + (state.x - x) * rest, y + (state.y - y) * rest, zoom);
}

function pointAt(item, event) {
  const box = item.picture.getBoundingClientRect(), scale = scaleOf(item.picture);
  return [state.x + (event.clientX - box.left - box.width / 2) / scale, state.y + (event.clientY - box.top - box.height / 2) / scale];
}

function showCross(from, event) {
  const [x, y] = from ? pointAt(from, event) : [0, 0];
  for (const item of tiles) {
    const scale = scaleOf(item.picture);
    const left = item.picture.clientWidth / 2 + (x - state.x) * scale, top = item.picture.clientHeight / 2 + (y - state.y) * scale;
    item.cross.style.transform = `translate(${left}px, ${top}px)`;
    item.cross.style.visibility = from && item !== from && item.visible ? "visible" : "hidden";
  }
}

for (const item of tiles) {
  const { picture } = item;
  const fingers = new Map();
  let moved = 0;
  picture.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    moved = 0;
  });
  picture.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") showCross(item, event);
      return;
    }
    const other = [...fingers.entries()].find(([id]) => id !== event.pointerId);
    const dx = event.clientX - before[0], dy = event.clientY - before[1];
    moved += Math.abs(dx) + Math.abs(dy);
    if (moved < 4) return;
    picture.setPointerCapture(event.pointerId);
    picture.classList.add("dragged");
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    showCross(null);
    if (other) {
      const distance = (a, b) => Math.max(10, Math.hypot(a[0] - b[0], a[1] - b[1]));
      const grown = distance([event.clientX, event.clientY], other[1]) / distance(before, other[1]);
      zoomBy(grown, ...pointAt(item, { clientX: (event.clientX + other[1][0]) / 2, clientY: (event.clientY + other[1][1]) / 2 }));
    } else {
      const scale = scaleOf(picture);
      lookAt(state.x - dx / scale, state.y - dy / scale, state.zoom);
    }
  });
  for (const name of ["pointerup", "pointercancel"]) {
    picture.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      picture.classList.remove("dragged");
    });
  }
  picture.addEventListener("pointerleave", () => showCross(null));
  picture.addEventListener("dblclick", (event) => zoomBy(2, ...pointAt(item, event)));
  picture.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.003)), ...pointAt(item, event));
  }, { passive: false });
  item.tile.addEventListener("click", () => {
    if (moved < 4) pick(item);
    moved = 0;
  });
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) tileOf.get(entry.target).visible = entry.isIntersecting;
  redraw();
}, { root: $("main"), rootMargin: "200px" });

function shape() {
  const image = data.images[state.image];
  // Never higher than what can be seen at once.
  const limit = Math.max(160, $("main").clientHeight - 130);
  for (const item of tiles) {
    const height = Math.min(item.picture.clientWidth * image.height / image.width, limit);
    item.picture.style.height = `${height}px`;
  }
  lookAt(state.x, state.y, state.zoom);
}

// Order and choice --------------------------------------------------------------------------
function order() {
  const by = state.sort;
  const value = (item) => item.item.figures[by];
  const sorted = [...tiles].sort((a, b) => {
    if (by === "rank") return a.place - b.place;
    if (by === "epoch") return a.item.epoch - b.item.epoch;
    if (value(a) === undefined || value(b) === undefined) return (value(a) === undefined) - (value(b) === undefined);
    return (lowIsGood(by) ? value(a) - value(b) : value(b) - value(a)) || b.item.epoch - a.item.epoch;
  });
  const shown = by === "rank" ? data.rankedFigure : by;
  for (const item of sorted) {
    item.list.querySelectorAll("[data-extra]").forEach((line) => line.remove());
    if (figureNames.includes(shown) && !UNDER_TILES.includes(shown)) {
      const line = row(shown, item.item.figures[shown]);
      line.dataset.extra = "";
      item.list.append(line);
    }
    for (const line of item.list.children) line.classList.toggle("sorted", line.dataset.figure === shown);
    $("grid").append(item.tile);
  }
  return sorted;
}

function pick(item, focus = true) {
  state.picked = item;
  for (const other of tiles) {
    other.tile.setAttribute("aria-selected", String(other === item));
    other.tile.tabIndex = other === item ? 0 : -1;
  }
  if (focus) item.tile.focus({ preventScroll: true });
  $("why").textContent = "";
  const name = document.createElement("b");
  name.textContent = `Epoch ${item.item.epoch}`;
  $("why").append(name, `. ${item.item.explanation}`);
  $("all").replaceChildren(...figureNames.map((figure) => row(figure, item.item.figures[figure])));
  $("record").hidden = $("more").hidden = false;
  command();
  // Now that the foot of the page has its height.
  item.tile.scrollIntoView({ block: "nearest" });
}

const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;
function command() {
  const by = $("by").value.trim() || "YOUR NAME", reason = $("reason").value.trim() || "WHY";
  $("command").textContent = `granulo checkpoints select ${data.version}/${state.picked.item.epoch} --by ${quoted(by)} --reason ${quoted(reason)}`;
}

async function copy() {
  if (!state.picked) return;
  const text = $("command").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages from files may not use the clipboard's own interface.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  $("copy").textContent = "copied";
  setTimeout(() => { $("copy").textContent = "copy"; }, 1500);
}

function neighbour(key) {
  const shown = [...$("grid").children];
  const columns = shown.filter((tile) => tile.offsetTop === shown[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const now = state.picked ? shown.indexOf(state.picked.tile) : -1;
  const next = now < 0 ? 0 : now + step;
  return next >= 0 && next < shown.length ? tileOf.get(shown[next]) : null;
}

// Controls ----------------------------------------------------------------------------------
function showImage(index) {
  state.image = (index + data.images.length) % data.images.length;
  $("image").value = String(state.image);
  for (const item of tiles) {
    const count = item.item.counts[state.image];
    item.count.textContent = count === undefined ? "" : `${count} particle${count === 1 ? "" : "s"}`;
  }
  state.zoom = 1;
  shape();
  fit();
}

function showMode(mode) {
  state.mode = mode;
  for (const button of $("overlay").children) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
  redraw();
}

function showSort(name) {
  state.sort = name;
  $("sort").value = name;
  order();
  redraw();
}

data.images.forEach((image, index) => {
  $("image").append(new Option(data.images.length > 1 ? `${index + 1}/${data.images.length} ${image.name}` : image.name, index));
});
const sorts = [["rank", "ranking"], ["epoch", "epoch"], ...figureNames.map((name) => [name, titleOf(name)])];
for (const [name, title] of sorts) $("sort").append(new Option(title, name));
$("image").addEventListener("change", (event) => showImage(Number(event.target.value)));
$("previous").addEventListener("click", () => showImage(state.image - 1));
$("next").addEventListener("click", () => showImage(state.image + 1));
$("previous").hidden = $("next").hidden = data.images.length < 2;
$("sort").addEventListener("change", (event) => showSort(event.target.value));
$("overlay").addEventListener("click", (event) => { if (event.target.dataset.mode) showMode(event.target.dataset.mode); });
$("in").addEventListener("click", () => zoomBy(1.5));
$("out").addEventListener("click", () => zoomBy(1 / 1.5));
$("fit").addEventListener("click", fit);
$("size").addEventListener("input", (event) => {
  document.documentElement.style.setProperty("--tile", `${event.target.value}px`);
  shape();
});
$("help").addEventListener("click", () => $("keys").showModal());
$("copy").addEventListener("click", copy);
for (const id of ["by", "reason"]) $(id).addEventListener("input", command);
new ResizeObserver(shape).observe($("main"));

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const key = event.key;
  const far = 40 / scaleOf(tiles[0].picture);
  const moves = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
  const actions = {
    "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: fit,
    o: () => showMode(MODES[(MODES.indexOf(state.mode) + 1) % MODES.length]),
    n: () => showImage(state.image + 1), p: () => showImage(state.image - 1), c: copy,
    s: () => showSort(sorts[(sorts.findIndex(([name]) => name === state.sort) + 1) % sorts.length][0]),
    "?": () => $("keys").showModal(),
  };
  if (moves[key] && event.shiftKey) lookAt(state.x + moves[key][0], state.y + moves[key][1], state.zoom);
  else if (moves[key]) {
    const next = neighbour(key);
    if (next) pick(next);
  } else if (actions[key]) actions[key]();
  else if (key === "Enter" && tileOf.has(document.activeElement)) pick(tileOf.get(document.activeElement));
  else return;
  event.preventDefault();
});

order();
showMode("outline");
showImage(0);
tiles[0].tile.tabIndex = 0;
for (const item of tiles) seen.observe(item.tile);
