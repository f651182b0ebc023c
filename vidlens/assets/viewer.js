// Draws frames and maps on canvases: the video stays in the browser, maps arrive as 16-bit numbers and are coloured here.
// A plain ES module. `model` is anywidget's; the static page has a stand-in with get, set, save_changes, on and off.

const bytes = (view) => new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
const clamp = (v, lo, hi) => Math.min(hi, Math.max(lo, v));
const short = (v) => (v === 0 ? "0" : Math.abs(v) >= 1000 || Math.abs(v) < 0.001 ? v.toExponential(2) : v.toPrecision(3));

function element(kind, parent, { text = "", cls = "", ...attributes } = {}) {
  const made = document.createElement(kind);
  made.textContent = text; // never markup
  if (cls) made.className = cls;
  // keeps JupyterLab from using keys of the focused element as shortcuts, such as the arrow keys of a slider
  if (/^(input|button|select|canvas)$/.test(kind)) made.dataset.lmSuppressShortcuts = true;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent?.append(made);
  return made;
}

// The frames as bitmaps; decoded once.
async function decoded(model) {
  const all = bytes(model.get("video"));
  const cuts = model.get("cuts");
  const one = (i) => createImageBitmap(new Blob([all.slice(cuts[i], cuts[i + 1])]));
  return Promise.all(cuts.slice(1).map((_, i) => one(i)));
}

// The maps of all panels as numbers from 0 to 65535, with the range of values that they stand for.
function mapsOf(model) {
  const [panels, frames, rows, cols] = model.get("shape");
  const raw = bytes(model.get("maps"));
  const values = new Uint16Array(raw.slice().buffer);
  const size = frames * rows * cols;
  if (!size || values.length !== panels * size) return null;
  return { values, panels, frames, rows, cols, size, ranges: model.get("ranges") };
}

// One frame of a map in colours, on a canvas with a pixel for each token.
function painted(maps, panel, frame, lut) {
  const image = new ImageData(maps.cols, maps.rows);
  const start = panel * maps.size + frame * maps.rows * maps.cols;
  for (let i = 0; i < maps.rows * maps.cols; i++) {
    const c = 3 * (maps.values[start + i] >> 8);
    image.data.set([lut[c], lut[c + 1], lut[c + 2], 255], 4 * i);
  }
  const canvas = new OffscreenCanvas(maps.cols, maps.rows);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// The Okabe-Ito palette, which colour-blind readers can tell apart.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff"];

// The chosen one of the colour maps, 256 times red, green, blue.
function lutOf(model) {
  const at = Math.max(0, model.get("cmaps").indexOf(model.get("cmap")));
  return bytes(model.get("luts")).subarray(768 * at, 768 * (at + 1));
}

const KEYS = "arrow keys move the cursor, Enter selects or paints there, comma and full stop change the frame, Space plays";

function drawPath(c, path, frame, colour, dashed, unit) {
  c.lineWidth = unit;
  c.setLineDash(dashed ? [2 * unit, 2 * unit] : []);
  for (const [stroke, width] of [["#000", 3 * unit], [colour, 1.5 * unit]]) {
    c.strokeStyle = stroke;
    c.lineWidth = width;
    c.beginPath();
    path.slice(0, frame + 1).forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
    c.stroke();
  }
  const [x, y, seen] = path[frame];
  c.setLineDash([]);
  c.beginPath();
  c.arc(x, y, 3 * unit, 0, 7);
  c.fillStyle = seen && !dashed ? colour : "transparent";
  c.fill();
  c.lineWidth = unit;
  c.strokeStyle = seen ? "#000" : colour;
  c.stroke();
}

// ipywidgets gives slider handles no name, and tooltips only to labels or not at all: add both.
function nameControls(explorer, tips) {
  for (const label of explorer.querySelectorAll(".jupyter-widgets > label")) {
    const control = label.parentElement;
    const tip = tips[label.textContent] ?? label.title;
    if (control.title !== tip) control.title = tip;
    for (const part of control.querySelectorAll("[title]")) if (part.title === label.textContent) part.title = tip;
    for (const handle of control.querySelectorAll(".noUi-handle")) {
      handle.setAttribute("aria-label", label.textContent);
      handle.dataset.lmSuppressShortcuts = true; // otherwise Notebook uses its arrow keys
    }
  }
}

// A description of each chart for screen readers: its axes and lines.
function nameCharts(explorer) {
  for (const chart of explorer.querySelectorAll(".js-plotly-plot")) {
    const { xaxis, yaxis } = chart.layout ?? {};
    if (!xaxis) continue;
    const lines = (chart.data ?? []).map((d) => d.name).filter(Boolean);
    const said = `${yaxis?.title?.text ?? ""} over ${xaxis.title?.text ?? ""}${lines.length ? `: ${lines.join(", ")}` : ""}`;
    if (chart.getAttribute("aria-label") === said) continue;
    chart.setAttribute("role", "figure");
    chart.setAttribute("aria-label", said);
  }
}

class Viewer {
  constructor(model, root) {
    Object.assign(this, { model, root, frame: model.get("frame"), cursor: null, stroke: null, timer: 0, images: [], off: [] });
    root.classList.add("vidlens-viewer");
    this.bar = element("div", root, { cls: "vidlens-progress", role: "progressbar", "aria-label": `${model.get("label")}: progress` });
    this.stage = element("div", root, { cls: "vidlens-stage" });
    this.controls();
    this.root.classList.toggle("vidlens-bare", model.get("bare"));
    this.says = element("div", root, { cls: "vidlens-says", "aria-live": "polite" });
    this.codeLine(element("div", root, { cls: "vidlens-code" }));
    this.alert = element("div", root, { cls: "vidlens-alert", role: "alert" });
    this.on(["video", "cuts"], () => this.load());
    this.on(["maps", "shape", "ranges", "panels"], () => this.newMaps());
    this.on(["luts", "cmaps", "cmap"], () => this.newColours());
    this.on(["alpha", "tracks", "truth", "point", "smooth", "arrow", "mask", "tool"], () => this.draw());
    this.on(["frame"], () => this.show(model.get("frame"), false));
    this.on(["message", "busy", "progress", "pending", "code"], () => this.status());
    this.on(["tool", "arrow"], () => (this.from = null)); // an arrow started by keyboard
    this.on(["size"], () => this.sized());
    this.on(["tips"], () => (this.named ??= this.nameAll()));
    this.files();
    this.measure();
    root.addEventListener("vidlens-frame", (e) => this.timer || this.show(e.detail, false));
    this.watch(model.widget_manager?.kernel);
    this.load();
    this.newColours();
    this.newMaps();
    this.sized();
    this.status();
  }

  // Report a dead kernel, where the front end knows of it (JupyterLab and Notebook do).
  watch(kernel) {
    const heard = (_, status) => {
      if (!/dead|restart|terminating/.test(status)) return;
      this.root.setAttribute("aria-busy", false);
      this.alert.textContent = "The kernel has stopped: run the notebook again.";
    };
    if (!kernel?.statusChanged?.connect) return;
    kernel.statusChanged.connect(heard);
    this.off.push(() => kernel.statusChanged.disconnect(heard));
  }

  on(names, f) {
    let waiting = false; // several traits of one message cause one update
    const later = () => {
      if (waiting) return;
      waiting = true;
      queueMicrotask(() => ((waiting = false), f()));
    };
    for (const n of names) {
      this.model.on(`change:${n}`, later);
      this.off.push(() => this.model.off(`change:${n}`, later));
    }
  }

  controls() {
    const bar = element("div", this.root, { cls: "vidlens-bar" });
    this.play = element("button", bar, { text: "▶", title: "Play or pause (Space)", "aria-label": "Play" });
    this.play.onclick = () => this.toggle();
    this.slider = element("input", bar, { type: "range", min: 0, step: 1, title: "Frame (comma and full stop)", "aria-label": "Frame" });
    this.slider.oninput = () => this.show(+this.slider.value);
    this.count = element("output", bar, { cls: "vidlens-count" });
    const label = element("label", bar, { text: "opacity", title: "Opacity of the map" });
    this.ofMaps = [label]; // controls without effect unless there is a map
    this.cover = element("input", label, { type: "range", min: 0, max: 1, step: 0.05, "aria-label": "Opacity of the map" });
    this.cover.oninput = () => (this.set({ alpha: +this.cover.value }), this.draw());
    this.colours = element("select", bar, { title: "Colour map, from low to high values", "aria-label": "Colour map" });
    this.ofMaps.push(this.colours);
    this.colours.onchange = () => (this.set({ cmap: this.colours.value }), this.newColours());
    const kinds = { PNG: "this frame as a picture", GIF: "all frames as an animated picture", MP4: "all frames as a video" };
    for (const [kind, what] of Object.entries(kinds)) {
      if (kind !== "PNG" && !this.model.send) continue; // the kernel writes these
      const save = element("button", bar, { text: kind, title: `Save ${what}`, "aria-label": `Save as ${kind}` });
      save.onclick = () => (kind === "PNG" ? this.download() : this.askFor(kind.toLowerCase()));
    }
    this.waiting = element("span", bar, { cls: "vidlens-pending", "aria-live": "polite" });
  }

  // The call that gives what is shown, with a button that copies it.
  codeLine(root) {
    this.codeRoot = root;
    this.code = element("code", root);
    const copy = element("button", root, { text: "Copy", title: "Copy this Python call", "aria-label": "Copy the Python call" });
    copy.onclick = async () => {
      getSelection().selectAllChildren(this.code); // stays selected where the clipboard is not available
      const done = await navigator.clipboard?.writeText(this.code.textContent).then(() => true, () => false);
      this.says.textContent = done ? "copied" : "selected: press Ctrl+C to copy";
    };
  }

  askFor(kind) {
    this.says.textContent = `writing a ${kind.toUpperCase()} ...`;
    this.model.send({ save: kind });
  }

  // Files that the kernel wrote.
  files() {
    if (!this.model.send) return;
    const came = ({ saved }, buffers) => {
      if (!saved) return;
      const url = URL.createObjectURL(new Blob([bytes(buffers[0])]));
      element("a", null, { href: url, download: saved }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
      this.says.textContent = `saved ${saved}`;
    };
    this.model.on("msg:custom", came);
    this.off.push(() => this.model.off("msg:custom", came));
  }

  // Report the width of the column: charts beside the viewer are laid out by the kernel, which cannot measure it.
  measure() {
    const tell = () => {
      const width = Math.round(this.root.clientWidth);
      if (width && Math.abs(width - this.model.get("width")) > 8) this.set({ width });
    };
    const seen = new ResizeObserver(() => {
      this.named ??= this.nameAll();
      clearTimeout(this.resting);
      this.resting = setTimeout(tell, 100); // once the width is stable
    });
    seen.observe(this.root);
    this.off.push(() => (seen.disconnect(), clearTimeout(this.resting)));
  }

  // Name the controls around the viewer, now and whenever more are added.
  nameAll() {
    const explorer = this.root.closest(".vidlens-explorer");
    if (!explorer || !Object.keys(this.model.get("tips")).length) return null; // only one of two viewers has the tips
    const name = () => (nameControls(explorer, this.model.get("tips")), nameCharts(explorer));
    name();
    this.on(["tips"], name);
    const more = new MutationObserver(name);
    more.observe(explorer, { childList: true, subtree: true });
    this.off.push(() => more.disconnect());
    return more;
  }

  sized() {
    this.root.style.setProperty("--panel", `${this.model.get("size")}px`);
  }

  newColours() {
    const names = this.model.get("cmaps");
    if (this.colours.options.length !== names.length)
      this.colours.replaceChildren(...names.map((text) => element("option", null, { text, value: text })));
    this.colours.value = this.model.get("cmap");
    this.legends?.forEach((each, i) => this.legend(each, i));
    this.draw();
  }

  set(values) {
    for (const [name, value] of Object.entries(values)) this.model.set(name, value);
    this.model.save_changes();
  }

  async load() {
    const mine = (this.loading = Symbol());
    if (this.model.get("cuts").length < 2) return;
    const images = await decoded(this.model);
    if (mine !== this.loading) return images.forEach((each) => each.close());
    this.free();
    this.images = images;
    this.slider.max = images.length - 1;
    this.root.dataset.frames = images.length;
    this.build();
    this.show(this.frame);
  }

  // Free decoded frames at once instead of leaving them to the garbage collector.
  free() {
    for (const each of this.images) each.close();
    this.images = [];
  }

  newMaps() {
    this.maps = mapsOf(this.model);
    for (const each of this.ofMaps) each.hidden = !this.maps;
    if (this.count_ !== Math.max(1, this.model.get("panels").length)) this.build();
    this.titles?.forEach((t, i) => (t.textContent = this.model.get("panels")[i] ?? ""));
    this.legends?.forEach((each, i) => this.legend(each, i));
    this.draw();
  }

  // One figure a panel: title, canvas, legend.
  build() {
    if (!this.images.length) return;
    this.count_ = Math.max(1, this.model.get("panels").length);
    this.stage.replaceChildren();
    const { width, height } = this.images[0];
    this.scale = Math.max(1, Math.round(320 / width));
    this.titles = [];
    this.legends = [];
    this.canvases = Array.from({ length: this.count_ }, (_, i) => {
      const figure = element("figure", this.stage);
      this.titles.push(element("figcaption", figure, { text: this.model.get("panels")[i] ?? "" }));
      // role application: a screen reader passes keys on to it
      const canvas = element("canvas", figure, { tabindex: 0, role: "application", "aria-description": KEYS });
      canvas.width = width * this.scale;
      canvas.height = height * this.scale;
      this.listen(canvas, i);
      this.legends.push(element("div", figure, { cls: "vidlens-legend" }));
      return canvas;
    });
    this.legends.forEach((each, i) => this.legend(each, i));
  }

  legend(root, i) {
    root.replaceChildren();
    if (!this.maps || i >= this.maps.panels) return;
    const [lo, hi] = this.maps.ranges[i];
    element("span", root, { text: short(lo) });
    const strip = element("canvas", root, { role: "img", "aria-label": `colour scale from ${short(lo)} to ${short(hi)}` });
    Object.assign(strip, { width: 256, height: 1 });
    const image = new ImageData(256, 1);
    const lut = lutOf(this.model);
    for (let c = 0; c < 256; c++) image.data.set([lut[3 * c], lut[3 * c + 1], lut[3 * c + 2], 255], 4 * c);
    strip.getContext("2d").putImageData(image, 0, 0);
    element("span", root, { text: `${short(hi)} ${this.model.get("unit")}` });
  }

  show(wanted, tell = true) {
    if (!this.images.length) return void (this.frame = wanted); // shown once they are decoded
    const frame = clamp(wanted, 0, this.images.length - 1);
    this.frame = frame;
    this.slider.value = frame;
    this.count.textContent = `${frame + 1} / ${this.images.length}`;
    this.draw();
    if (tell ? frame !== this.model.get("frame") : frame !== wanted) this.set({ frame });
  }

  draw() {
    this.cover.value = this.model.get("alpha");
    if (!this.images.length || !this.canvases) return;
    const lut = lutOf(this.model);
    this.canvases.forEach((canvas, i) => this.drawPanel(canvas, i, lut));
    this.root.dataset.shown = this.frame;
  }

  drawPanel(canvas, i, lut) {
    const c = canvas.getContext("2d");
    const { width, height } = this.images[0];
    c.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    c.imageSmoothingEnabled = false;
    c.globalAlpha = 1;
    c.drawImage(this.images[this.frame], 0, 0, width, height);
    const maps = this.maps;
    if (maps && i < maps.panels) {
      c.globalAlpha = this.model.get("alpha");
      c.imageSmoothingEnabled = this.model.get("smooth");
      c.drawImage(painted(maps, i, this.tokenFrame(), lut), 0, 0, width, height);
      c.globalAlpha = 1;
    }
    this.drawOver(c);
    const title = this.model.get("panels")[i] ?? "";
    const at = this.timer ? "playing" : `frame ${this.frame + 1} of ${this.images.length}`; // so that not every frame is read out
    canvas.setAttribute("aria-label", `${this.model.get("label")} ${title}, ${at}`);
  }

  tokenFrame() {
    return clamp(this.model.get("times")[this.frame] ?? 0, 0, this.maps.frames - 1);
  }

  drawOver(c) {
    const unit = 1 / this.scale + this.images[0].width / 640;
    const mask = this.stroke?.mask ?? bytes(this.model.get("mask"));
    const { width, height } = this.images[0];
    if (mask.length === width * height) {
      const image = new ImageData(width, height);
      for (let i = 0; i < mask.length; i++) if (mask[i]) image.data.set([0, 158, 115, 115], 4 * i);
      const paint = new OffscreenCanvas(width, height);
      paint.getContext("2d").putImageData(image, 0, 0);
      c.drawImage(paint, 0, 0, width, height);
    }
    const end = (path) => Math.min(this.frame, path.length - 1);
    this.model.get("truth").forEach((p, i) => drawPath(c, p, end(p), COLOURS[i % 8], true, unit));
    this.model.get("tracks").forEach((p, i) => drawPath(c, p, end(p), COLOURS[i % 8], false, unit));
    const [t, ...at] = this.model.get("point");
    if (t === this.frame && this.model.get("tool") === "point") this.square(c, at, unit);
    const arrow = this.stroke?.arrow ?? this.model.get("arrow");
    if (arrow.length === 4) this.drawArrow(c, arrow, unit);
    if (this.cursor) this.square(c, this.cursor, unit);
  }

  // The selected point or the cursor, visible on black and on white.
  square(c, [x, y], unit) {
    c.setLineDash([]);
    c.lineWidth = unit;
    for (const [colour, d] of [["#000", unit], ["#fff", 0]]) {
      c.strokeStyle = colour;
      c.strokeRect(x - 4 * unit + d, y - 4 * unit + d, 8 * unit, 8 * unit);
    }
  }

  drawArrow(c, [x0, y0, x1, y1], unit) {
    const a = Math.atan2(y1 - y0, x1 - x0);
    for (const [colour, width] of [["#000", 5 * unit], ["#f0e442", 2.5 * unit]]) {
      c.strokeStyle = colour;
      c.lineWidth = width;
      c.beginPath();
      c.moveTo(x0, y0);
      c.lineTo(x1, y1);
      for (const side of [-2.6, 2.6]) {
        c.moveTo(x1, y1);
        c.lineTo(x1 + 8 * unit * Math.cos(a + side), y1 + 8 * unit * Math.sin(a + side));
      }
      c.stroke();
    }
  }

  // Pixels of the video under a pointer.
  place(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const { width, height } = this.images[0];
    const at = (v, span, size) => clamp((v / span) * size, 0, size - 1e-3);
    return [at(event.clientX - box.left, box.width, width), at(event.clientY - box.top, box.height, height)];
  }

  listen(canvas, i) {
    canvas.onpointerdown = (e) => this.begin(canvas, e);
    canvas.onpointermove = (e) => (this.stroke ? this.go(this.place(canvas, e)) : this.read(i, this.place(canvas, e)));
    canvas.onpointerup = canvas.onpointercancel = () => this.finish();
    canvas.onpointerleave = () => (this.says.textContent = "");
    canvas.onkeydown = (e) => this.key(e, i);
    canvas.onblur = () => ((this.cursor = null), this.draw());
  }

  begin(canvas, event) {
    if (event.button) return; // only the primary button
    const at = this.place(canvas, event);
    const tool = this.model.get("tool");
    if (tool === "point") return this.pick(at, this.canvases.indexOf(canvas));
    if (tool === "none") return;
    canvas.setPointerCapture(event.pointerId);
    if (tool === "arrow") this.stroke = { arrow: [...at, ...at] };
    else this.brush(at, event.shiftKey);
  }

  go([x, y]) {
    const stroke = this.stroke;
    if (stroke.arrow) stroke.arrow.splice(2, 2, x, y);
    else {
      const [x0, y0] = stroke.at ?? [x, y];
      const n = Math.ceil(Math.hypot(x - x0, y - y0) / (this.images[0].width / 40)) || 1; // no gaps in a fast stroke
      for (let i = 1; i <= n; i++) this.touch(x0 + ((x - x0) * i) / n, y0 + ((y - y0) * i) / n);
      stroke.at = [x, y];
    }
    this.draw();
  }

  touch(x, y) {
    const { width, height } = this.images[0];
    const r = width / 20;
    for (let v = Math.max(0, Math.floor(y - r)); v < Math.min(height, y + r); v++)
      for (let u = Math.max(0, Math.floor(x - r)); u < Math.min(width, x + r); u++)
        if ((u + 0.5 - x) ** 2 + (v + 0.5 - y) ** 2 <= r * r) this.stroke.mask[v * width + u] = this.stroke.value;
  }

  finish() {
    if (!this.stroke) return;
    const { arrow, mask } = this.stroke;
    this.stroke = null;
    this.set(arrow ? { arrow } : { mask: new DataView(mask.buffer) });
  }

  // Do at the cursor what a click would do; an arrow takes two.
  enter(shift, i) {
    const tool = this.model.get("tool");
    if (tool === "point") return this.pick(this.cursor, i);
    if (tool === "none") return;
    if (tool === "mask") (this.brush(this.cursor, shift), this.finish());
    else if (this.from) (this.set({ arrow: [...this.from, ...this.cursor] }), (this.from = null));
    else this.from = [...this.cursor];
    this.says.textContent = tool === "mask" ? "painted" : this.from ? "the arrow starts here" : "the arrow ends here";
    this.draw();
  }

  // Start a stroke on the existing mask; Shift erases.
  brush(at, shift) {
    const { width, height } = this.images[0];
    const old = bytes(this.model.get("mask"));
    this.stroke = { mask: old.length === width * height ? old.slice() : new Uint8Array(width * height), value: shift ? 0 : 1 };
    this.go(at);
  }

  pick([x, y], panel) {
    const before = this.model.get("picked");
    this.set({ picked: [this.frame, x, y, (before[3] ?? 0) + 1, panel] });
    this.says.textContent = `selected x ${Math.round(x)}, y ${Math.round(y)} in frame ${this.frame + 1}`;
  }

  // Show the value of the map under the pointer.
  read(i, [x, y]) {
    let said = `x ${Math.floor(x)}, y ${Math.floor(y)}, frame ${this.frame + 1}`;
    const maps = this.maps;
    if (maps && i < maps.panels) {
      const { width, height } = this.images[0];
      const [row, col] = [Math.floor((y / height) * maps.rows), Math.floor((x / width) * maps.cols)];
      const v = maps.values[i * maps.size + (this.tokenFrame() * maps.rows + row) * maps.cols + col];
      const [lo, hi] = maps.ranges[i];
      said += `: ${short(lo + ((hi - lo) * v) / 65535)} ${this.model.get("unit")}`;
    }
    this.says.textContent = said;
  }

  key(event, i) {
    const { width, height } = this.images[0];
    const step = this.maps ? [width / this.maps.cols, height / this.maps.rows] : [8, 8];
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const n = this.images.length;
    if (moves[event.key]) {
      const [x, y] = this.cursor ?? [width / 2, height / 2];
      const [dx, dy] = moves[event.key];
      this.cursor = [clamp(x + dx * step[0], 0, width - 1e-3), clamp(y + dy * step[1], 0, height - 1e-3)];
      this.draw();
      this.read(i, this.cursor);
    } else if (event.key === "Enter" && this.cursor) this.enter(event.shiftKey, i);
    else if (event.key === "Escape" && this.from) this.from = null;
    else if (event.key === " ") this.toggle();
    else if (event.key === ",") this.show((this.frame + n - 1) % n);
    else if (event.key === ".") this.show((this.frame + 1) % n);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  toggle() {
    if (!this.images.length) return;
    const on = !this.timer;
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => this.next(), 1000 / this.model.get("fps")) : 0;
    this.play.textContent = on ? "⏸" : "▶";
    this.play.setAttribute("aria-label", on ? "Pause" : "Play");
    if (!on) this.set({ frame: this.frame });
    this.draw();
  }

  // During playback the kernel is not informed; the other viewers are.
  next() {
    this.show((this.frame + 1) % this.images.length, false);
    const others = this.root.closest(".vidlens-explorer")?.querySelectorAll(".vidlens-viewer") ?? [];
    for (const each of others) if (each !== this.root) each.dispatchEvent(new CustomEvent("vidlens-frame", { detail: this.frame }));
  }

  status() {
    const part = this.model.get("progress");
    this.alert.textContent = this.model.get("message");
    this.waiting.textContent = this.model.get("pending");
    this.code.textContent = this.model.get("code");
    this.codeRoot.hidden = !this.model.get("code");
    this.root.setAttribute("aria-busy", this.model.get("busy"));
    this.bar.hidden = !this.model.get("busy");
    this.bar.style.width = `${100 * (part < 0 ? 1 : part)}%`;
    if (part < 0) this.bar.removeAttribute("aria-valuenow"); // unknown
    else this.bar.setAttribute("aria-valuenow", Math.round(100 * part));
  }

  download() {
    const gap = 8;
    const all = this.canvases;
    const whole = document.createElement("canvas");
    whole.width = all.reduce((w, c) => w + c.width + gap, -gap);
    whole.height = all[0].height;
    let x = 0;
    for (const c of all) (whole.getContext("2d").drawImage(c, x, 0), (x += c.width + gap));
    const link = element("a", null, { href: whole.toDataURL("image/png"), download: `vidlens-frame-${this.frame + 1}.png` });
    link.click();
  }

  close() {
    clearInterval(this.timer);
    this.loading = null; // drop frames that are decoded later
    for (const f of this.off) f();
    this.free();
  }
}

function render({ model, el }) {
  const viewer = new Viewer(model, el);
  return () => viewer.close();
}

export default { render };
