// The frame with its objects: zoom, pan, and the tools. Drawing works with the mouse, and with the keyboard by a crosshair.

const CLOSING_REACH = 9; // screen pixels around a polygon's first corner
const CLICK_REACH = 4; // screen pixels that the pointer may move during a click
const SHRUNK = 0.75; // below this scale pixels would be left out
const EXACT_ZOOM = 3; // from this scale on single pixels are looked at

const HINTS = {
  move: "",
  box: "Drag a box around the object, or click two opposite corners.",
  polygon: "Click the corners; click the first one again, or press Enter, to close the polygon.",
  scribble: "Draw strokes inside the object; hold Alt, or use the right button, for strokes outside.",
  brush: "Paint the object.",
  eraser: "Take pixels away.",
};

export class Stage {
  // on: {begin(), stroke(stroke), readout(text), exact(wanted)}; begin comes before the first point of a stroke
  constructor(section, on) {
    this.section = section;
    this.on = on;
    this.canvas = section.querySelector("canvas");
    this.hint = section.querySelector("#hint");
    this.context = this.canvas.getContext("2d");
    this.frame = this.overlay = this.mask = null;
    this.scale = 1;
    this.origin = [0, 0];
    this.fitted = true;
    this.radius = 6;
    this.colour = "#ffffff";
    this.points = []; // of the stroke in progress, frame pixels
    this.anchor = null; // the first corner of a box that is clicked, frame pixels
    this.pointerId = null; // of the pointer that draws
    this.touches = new Map(); // pointer -> place on the screen; two fingers zoom
    this.kept = []; // strokes that wait for their result
    this.cursor = null; // crosshair, frame pixels
    this.tool = "move";
    new ResizeObserver(() => this.resize()).observe(section);
    // The margin around the canvas counts, too: boxes can begin outside of the frame.
    section.addEventListener("pointerdown", (event) => this.press(event));
    section.addEventListener("pointermove", (event) => this.drag(event));
    section.addEventListener("pointerup", (event) => this.release(event));
    section.addEventListener("pointercancel", (event) => { this.touches.delete(event.pointerId); this.cancel(); });
    section.addEventListener("contextmenu", (event) => event.preventDefault());
    section.addEventListener("dblclick", () => this.tool === "polygon" && this.closePolygon());
    section.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.watchResolution();
  }

  // The window may move to a screen of another resolution without changing its size.
  watchResolution() {
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => { this.resize(); this.watchResolution(); }, { once: true });
  }

  setTool(tool) {
    this.cancel();
    this.tool = tool;
    this.section.dataset.tool = tool;
    this.tellHint();
    this.draw();
  }

  // Says that the frame that is shown is not the one that will be drawn on; empty when it is.
  wait(text) {
    this.waiting = text;
    this.section.toggleAttribute("data-waiting", Boolean(text));
    this.tellHint();
  }

  tellHint() {
    const text = this.waiting || (this.anchor ? "Click the opposite corner." : HINTS[this.tool]);
    if (this.hint.textContent !== text) this.hint.textContent = text;
  }

  // frame: ImageBitmap; mask: of Pictures or null; overlay: its picture or null
  show(frame, mask, overlay) {
    const other = !this.frame || frame.width !== this.frame.width || frame.height !== this.frame.height;
    Object.assign(this, { frame, mask, overlay });
    if (other) this.fit();
    this.draw();
  }

  setSize(width, height) {
    this.size = [width, height];
    this.fit();
  }

  setSizeOnce(width, height) {
    if (!this.size) this.setSize(width, height);
  }

  // The view ------------------------------------------------------------------------------------

  resize() {
    const ratio = devicePixelRatio;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    if (this.fitted) this.fit();
    this.draw();
  }

  fit() {
    if (!this.size) return;
    const [width, height] = this.size;
    const space = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.scale = Math.max(0.01, Math.min(space[0] / width, space[1] / height));
    this.origin = [(space[0] - width * this.scale) / 2, (space[1] - height * this.scale) / 2];
    this.fitted = true;
    this.zoomed();
  }

  zoomBy(factor, x, y) {
    const middle = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    [x, y] = x === undefined ? (this.cursor ? this.toScreen(this.cursor) : middle) : [x, y];
    const scale = Math.min(64, Math.max(0.05, this.scale * factor));
    const [left, top] = this.origin;
    this.origin = [x - ((x - left) * scale) / this.scale, y - ((y - top) * scale) / this.scale];
    this.scale = scale;
    this.fitted = false;
    this.zoomed();
  }

  // Moves the view so that a place is in it.
  reveal(point) {
    const space = [this.canvas.clientWidth, this.canvas.clientHeight];
    const margin = Math.min(8, this.scale / 2); // the middle of a pixel at the edge of a frame that fits
    this.toScreen(point).forEach((at, axis) => {
      if (at < margin) this.origin[axis] += margin - at;
      else if (at > space[axis] - margin) this.origin[axis] -= at - (space[axis] - margin);
      else return;
      this.fitted = false;
    });
  }

  zoomed() {
    this.on.exact(this.scale >= EXACT_ZOOM);
    this.draw();
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 33 : 1);
    this.zoomBy(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0016)), ...this.place(event));
  }

  // Of an event, on the canvas; style sheets and extensions may zoom the page.
  place({ clientX, clientY }) {
    const { left, top, width } = this.canvas.getBoundingClientRect();
    const zoom = this.canvas.clientWidth / width;
    return [(clientX - left) * zoom, (clientY - top) * zoom];
  }

  toFrame(x, y) {
    const [width, height] = this.size;
    const column = Math.floor((x - this.origin[0]) / this.scale);
    const row = Math.floor((y - this.origin[1]) / this.scale);
    return [Math.min(Math.max(column, 0), width - 1), Math.min(Math.max(row, 0), height - 1)];
  }

  toScreen([x, y]) {
    return [(x + 0.5) * this.scale + this.origin[0], (y + 0.5) * this.scale + this.origin[1]];
  }

  // The mouse, a pen, fingers -------------------------------------------------------------------

  press(event) {
    if (!this.size || event.target.closest("button")) return;
    event.preventDefault(); // keeps the focus, so that arrow keys go on to change the frame
    if (document.activeElement !== this.canvas) document.activeElement?.blur(); // but keys must not go on into a name
    const place = this.place(event);
    if (event.pointerType === "touch" && this.touches.set(event.pointerId, place).size > 1) {
      this.cancel(); // a second finger: zoom
      return;
    }
    if (this.pressed) return; // the palm beside a pen
    this.cursor = null;
    if (this.tool === "move" || event.button === 1) {
      this.section.setPointerCapture(event.pointerId);
      this.pan = place;
      this.section.dataset.panning = "";
      return;
    }
    const point = this.toFrame(...place);
    this.on.begin();
    if (this.tool === "polygon") {
      if (event.button === 2) this.closePolygon();
      else this.corner(point, place);
      return;
    }
    if (event.button !== 0 && this.tool !== "scribble") return;
    this.outside = this.tool === "scribble" && (event.button === 2 || event.altKey);
    this.section.setPointerCapture(event.pointerId);
    Object.assign(this, { pressed: true, pointerId: event.pointerId, pressedAt: place, moved: false, points: [point] });
    this.draw();
  }

  drag(event) {
    if (!this.size) return;
    const place = this.place(event);
    if (this.touches.size > 1) return this.pinch(event.pointerId, place);
    if (this.pressed && this.pointerId !== null && event.pointerId !== this.pointerId) return;
    const point = this.toFrame(...place);
    this.pointer = point;
    this.tell(point);
    if (this.pan) {
      this.origin = [this.origin[0] + place[0] - this.pan[0], this.origin[1] + place[1] - this.pan[1]];
      this.pan = place;
      this.fitted = false;
    } else if (this.pressed) {
      this.moved ||= Math.hypot(place[0] - this.pressedAt[0], place[1] - this.pressedAt[1]) > CLICK_REACH;
      const events = this.tool === "box" ? [] : event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.extend(this.toFrame(...this.place(one)));
    } else if (this.anchor) this.points = [this.anchor, point];
    this.draw();
  }

  release(event) {
    this.touches.delete(event.pointerId);
    delete this.section.dataset.panning;
    this.pan = null;
    if (!this.pressed || event.pointerId !== this.pointerId) return;
    this.drag(event); // a fast pointer tells of its last place only now
    const point = this.toFrame(...this.place(event));
    if (this.tool !== "box" || this.moved) return this.finish();
    if (this.anchor && (this.anchor[0] !== point[0] || this.anchor[1] !== point[1])) {
      this.points = [this.anchor, point];
      return this.finish();
    }
    Object.assign(this, { pressed: false, anchor: point, points: [point] });
    this.tellHint();
    this.draw();
  }

  pinch(id, place) {
    const other = [...this.touches].find(([key]) => key !== id)?.[1];
    const before = this.touches.get(id);
    if (!before || !other) return;
    const distance = (at) => Math.max(1, Math.hypot(at[0] - other[0], at[1] - other[1]));
    const middle = [(place[0] + other[0]) / 2, (place[1] + other[1]) / 2];
    this.origin = this.origin.map((at, axis) => at + (place[axis] - before[axis]) / 2);
    this.touches.set(id, place);
    this.zoomBy(distance(place) / distance(before), ...middle);
  }

  // The keyboard: returns whether the key was for the crosshair ------------------------------------

  key(event) {
    if (this.tool === "polygon" && this.points.length && !this.cursor) { // the corners were clicked
      if (event.key === "Enter") this.closePolygon();
      else if (event.key === "Backspace") this.points.pop();
      else return false;
      this.draw();
      return true;
    }
    if (this.tool === "move" || document.activeElement !== this.canvas || !this.size) return false;
    const step = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const [width, height] = this.size;
    this.cursor ??= [width >> 1, height >> 1];
    if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      const [x, y] = this.cursor;
      this.cursor = [Math.min(Math.max(x + dx, 0), width - 1), Math.min(Math.max(y + dy, 0), height - 1)];
      this.pointer = this.cursor;
      this.reveal(this.cursor);
      if (this.pressed) this.extend(this.cursor);
    } else if (event.key === "Enter") {
      this.on.begin();
      if (this.tool === "polygon") this.corner(this.cursor, this.toScreen(this.cursor));
      else if (this.pressed) this.finish();
      else {
        this.outside = this.tool === "scribble" && event.altKey;
        this.pressed = true;
        this.pointerId = this.anchor = null;
        this.points = [this.cursor];
      }
    } else if (event.key === "Backspace" && this.tool === "polygon") this.points.pop();
    else return false;
    this.tell(this.cursor);
    this.draw();
    return true;
  }

  // Strokes -------------------------------------------------------------------------------------

  extend(point) {
    const [x, y] = this.points[this.points.length - 1];
    if (this.tool === "box") this.points = [this.points[0], point];
    else if (x !== point[0] || y !== point[1]) this.points.push(point);
  }

  corner(point, [x, y]) {
    if (this.points.length >= 3) {
      const [firstX, firstY] = this.toScreen(this.points[0]);
      if (Math.hypot(firstX - x, firstY - y) <= CLOSING_REACH) return this.closePolygon();
    }
    this.points.push(point);
    this.draw();
  }

  closePolygon() {
    const corners = this.points.filter((p, i, all) => !i || p[0] !== all[i - 1][0] || p[1] !== all[i - 1][1]);
    if (corners.length < 3) return;
    this.points = corners;
    this.finish();
  }

  finish() {
    const { tool, points } = this;
    this.pressed = false;
    this.anchor = null;
    this.points = [];
    this.tellHint();
    if (tool === "box" && points.length < 2) return this.draw();
    const stroke = { tool, points, radius: this.radius, outside: this.outside };
    this.kept.push(stroke);
    this.draw();
    this.on.stroke(stroke);
  }

  // The mask of a stroke is there, or it failed.
  settle(stroke) {
    this.kept = this.kept.filter((other) => other !== stroke);
    this.draw();
  }

  // Gives the stroke in progress up; returns whether there was one.
  cancel() {
    const busy = this.points.length > 0;
    this.pressed = false;
    this.pan = this.anchor = null;
    this.points = [];
    this.tellHint();
    this.draw();
    return busy;
  }

  // Another frame comes.
  leave() {
    this.kept = [];
    this.cancel();
  }

  tell([x, y]) {
    const id = this.mask ? this.mask.ids[y * this.mask.width + x] : 0;
    this.on.readout(x, y, id);
  }

  // Painting ------------------------------------------------------------------------------------

  draw() {
    cancelAnimationFrame(this.request);
    this.request = requestAnimationFrame(() => this.paint());
  }

  paint() {
    const { context: c, canvas } = this;
    const ratio = devicePixelRatio;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.frame || !this.size) return;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    const [left, top] = this.origin;
    const [width, height] = [this.size[0] * this.scale, this.size[1] * this.scale];
    c.imageSmoothingEnabled = this.scale < EXACT_ZOOM;
    c.imageSmoothingQuality = this.scale < SHRUNK ? "medium" : "low"; // "high" takes longer than all else without a GPU
    c.drawImage(this.frame, left, top, width, height);
    if (this.overlay) c.drawImage(this.overlay, left, top, width, height);
    for (const stroke of this.kept) this.outline(stroke.tool, stroke.points, stroke.radius, false, stroke.outside);
    if (this.points.length) this.outline(this.tool, this.points, this.radius, true, this.outside);
    this.drawCursor();
  }

  outline(tool, points, radius, open, outside) {
    const c = this.context;
    c.lineJoin = c.lineCap = "round";
    c.lineWidth = 2;
    c.strokeStyle = c.fillStyle = outside ? "#ff4d4d" : tool === "scribble" ? "#fff" : this.colour;
    c.globalAlpha = 1;
    c.setLineDash([]);
    const line = points.map((point) => this.toScreen(point));
    if (tool === "box") {
      const half = this.scale / 2;
      const [[ax, ay], [bx, by]] = [line[0], line[line.length - 1]];
      const box = [Math.min(ax, bx) - half, Math.min(ay, by) - half, Math.abs(ax - bx) + 2 * half, Math.abs(ay - by) + 2 * half];
      c.strokeStyle = "rgb(0 0 0 / .55)";
      c.strokeRect(...box);
      c.setLineDash([6, 4]);
      c.strokeStyle = "#fff";
      c.strokeRect(...box);
      return;
    }
    if (tool === "brush" || tool === "eraser") {
      c.lineWidth = Math.max(1, 2 * radius + 1) * this.scale;
      c.globalAlpha = 0.55;
      if (tool === "eraser") c.strokeStyle = c.fillStyle = "#000";
    } else if (tool === "scribble") c.lineWidth = 4;
    c.beginPath();
    line.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
    if (line.length === 1) c.lineTo(line[0][0] + 0.01, line[0][1]);
    if (tool === "polygon" && open && this.pointer) c.lineTo(...this.toScreen(this.pointer));
    else if (tool === "polygon") c.closePath();
    c.stroke();
    c.globalAlpha = 1;
    if (tool === "polygon")
      line.forEach(([x, y], i) => {
        c.beginPath();
        c.arc(x, y, i ? 3 : 5, 0, 7);
        c.fill();
      });
  }

  drawCursor() {
    const c = this.context;
    const sized = this.tool === "brush" || this.tool === "eraser";
    const at = this.cursor ?? (sized ? this.pointer : null);
    if (!at) return;
    const [x, y] = this.toScreen(at);
    c.setLineDash([]);
    c.lineWidth = 1;
    const lines = () => {
      c.beginPath();
      if (sized) c.arc(x, y, Math.max(2, (this.radius + 0.5) * this.scale), 0, 7);
      if (this.cursor) {
        c.moveTo(x - 14, y);
        c.lineTo(x + 14, y);
        c.moveTo(x, y - 14);
        c.lineTo(x, y + 14);
      }
      c.stroke();
    };
    c.strokeStyle = "rgb(0 0 0 / .7)";
    c.lineWidth = 3;
    lines();
    c.strokeStyle = "#fff";
    c.lineWidth = 1;
    lines();
  }
}
