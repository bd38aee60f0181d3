// Thumbnails, what has a mask, what was drawn, and a strip of trust for each object.

const THUMBS = 40;
const BAR = 14;
const STRIP = 22;
const GAP = 2;
const JUMP = 0.6; // overlap with the frame before below which an object jumps

export class Timeline {
  constructor(root, onSeek) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.onSeek = onSeek;
    this.current = 0;
    this.width = root.clientWidth;
    this.cursor = root.querySelector(".cursor");
    new ResizeObserver(() => this.draw()).observe(root);
    root.addEventListener("pointerdown", (event) => {
      root.setPointerCapture(event.pointerId);
      this.seek(event);
    });
    root.addEventListener("pointermove", (event) => event.buttons && this.seek(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  seek(event) {
    if (!this.state || this.count() < 1) return;
    const { left, width } = this.root.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - left) / width, 0), 0.999999);
    this.onSeek(this.first() + Math.floor(share * this.count()));
  }

  first() {
    return this.state.frames.first;
  }

  count() {
    const { first, last, expected, complete } = this.state.frames;
    return complete ? last - first + 1 : Math.max(expected, last - first + 1);
  }

  set(state, pictures) {
    this.state = state;
    this.pictures = pictures;
    this.draw();
  }

  goTo(frame) {
    this.current = frame;
    if (!this.state) return;
    this.root.setAttribute("aria-valuemin", this.first());
    this.root.setAttribute("aria-valuemax", Math.max(this.first(), this.state.frames.last));
    this.root.setAttribute("aria-valuenow", frame);
    this.root.setAttribute("aria-valuetext", `Frame ${frame}${this.state.drawn[frame] ? ", drawn" : ""}`);
    this.moveCursor();
  }

  // An element of its own, so that a jump to another frame paints nothing here.
  moveCursor() {
    const per = this.width / Math.max(1, this.count());
    this.cursor.style.transform = `translateX(${(this.current - this.first() + 0.5) * per}px)`;
  }

  draw() {
    cancelAnimationFrame(this.request);
    this.request = requestAnimationFrame(() => this.state && this.paint());
  }

  paint() {
    const { state, canvas, root } = this;
    const width = (this.width = root.clientWidth);
    const rows = state.objects.length;
    const height = THUMBS + GAP + BAR + rows * (STRIP + GAP);
    const ratio = devicePixelRatio;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.height = `${height}px`;
    const c = canvas.getContext("2d");
    c.scale(ratio, ratio);
    const style = getComputedStyle(root);
    const colour = (name) => {
      c.fillStyle = "#000";
      c.fillStyle = resolved(root, name) ?? style.color;
      return c.fillStyle;
    };
    const per = width / Math.max(1, this.count());
    const at = (frame) => (frame - this.first()) * per;
    this.thumbnails(c, width, per, colour("--sunken"));
    const bar = THUMBS + GAP;
    c.fillStyle = colour("--sunken");
    c.fillRect(0, bar, width, BAR);
    c.fillStyle = colour("--accent");
    c.globalAlpha = 0.45;
    for (const frame of Object.keys(state.masks)) c.fillRect(at(+frame), bar + 4, Math.max(per, 1), BAR - 8);
    c.globalAlpha = 1;
    state.objects.forEach((object, row) => this.strip(c, object, bar + BAR + GAP + row * (STRIP + GAP), width, per, at, colour));
    c.fillStyle = colour("--warn");
    for (const { frame } of state.doubts) triangle(c, at(frame) + per / 2, bar + BAR - 1);
    c.fillStyle = colour("--accent");
    for (const frame of Object.keys(state.drawn)) diamond(c, at(+frame) + per / 2, bar + BAR / 2);
    this.cursor.style.height = `${height}px`;
    this.moveCursor();
  }

  thumbnails(c, width, per, ground) {
    c.fillStyle = ground;
    c.fillRect(0, 0, width, THUMBS);
    const { frames } = this.state;
    const each = (THUMBS * frames.width) / frames.height;
    for (let x = 0; x < width; x += each) {
      const frame = this.first() + Math.floor((x + each / 2) / per);
      if (frame > frames.last || frames.missing.includes(frame)) continue;
      const entry = this.pictures.thumbs.get(frame);
      if (entry.value) c.drawImage(entry.value, x, 0, each, THUMBS);
      else entry.promise.then(() => this.draw(), () => {});
    }
  }

  // Bars show the area, the line the confidence from 0.5 to 1; a mark at the foot says that the object jumps or is lost.
  strip(c, object, top, width, per, at, colour) {
    c.fillStyle = colour("--sunken");
    c.fillRect(0, top, width, STRIP);
    const rows = Object.entries(this.state.measured).filter(([, objects]) => objects[object.id]);
    const values = rows.map(([frame, objects]) => [at(+frame), ...objects[object.id]]);
    const largest = Math.max(1, ...values.map(([, area]) => area));
    const wide = Math.max(per, 1);
    const [own, bad, text] = [object.colour, colour("--bad"), colour("--text")];
    for (const [x, area, , overlap] of values) {
      const tall = (area / largest) * (STRIP - 3);
      c.globalAlpha = 0.6;
      c.fillStyle = own;
      c.fillRect(x, top + STRIP - tall, wide + 0.3, tall);
      c.globalAlpha = 1;
      if (!area || (overlap !== null && overlap < JUMP)) {
        c.fillStyle = bad;
        c.fillRect(x, top + STRIP - 4, Math.max(per, 2), 4);
      }
    }
    c.strokeStyle = text;
    c.lineWidth = 1;
    c.beginPath();
    let before = -Infinity;
    for (const [x, , confidence] of values) {
      if (confidence === null) continue;
      const y = top + 1 + (STRIP - 2) * (1 - Math.max(0, confidence - 0.5) / 0.5);
      if (x - before > 2 * wide + 0.5) c.moveTo(x + per / 2, y);
      else c.lineTo(x + per / 2, y);
      before = x;
    }
    c.stroke();
  }
}

// A custom property as a colour that a canvas understands.
function resolved(root, name) {
  const probe = (resolved.probe ??= root.appendChild(document.createElement("i")));
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function diamond(c, x, y) {
  c.beginPath();
  c.moveTo(x, y - 6);
  c.lineTo(x + 5, y);
  c.lineTo(x, y + 6);
  c.lineTo(x - 5, y);
  c.fill();
}

function triangle(c, x, y) {
  c.beginPath();
  c.moveTo(x, y - 6);
  c.lineTo(x + 4, y);
  c.lineTo(x - 4, y);
  c.fill();
}
