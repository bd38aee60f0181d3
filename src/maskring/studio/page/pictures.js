// Frames and masks of the open clip: fetched once, the least recently used given up.

import { getBitmap, getBytes } from "./api.js";

const FRAMES_KEPT = [6, 60]; // at least and at most
const MASKS_KEPT = [6, 120];
const BYTES_KEPT = 256 << 20; // of the frames, and as many of the masks: one frame of 4K takes 33 MB
const AHEAD = 8; // frames that are fetched before they are played

// For createImageBitmap: grey values stay what they are.
export const MASK_OPTIONS = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

class Cache {
  constructor(limit, load) {
    this.limit = limit;
    this.load = load;
    this.entries = new Map();
  }

  get(key, ...rest) {
    let entry = this.entries.get(key);
    if (entry) this.entries.delete(key);
    else {
      entry = { value: null };
      entry.promise = this.load(key, ...rest).then(
        (value) => (entry.value = value),
        (error) => {
          this.entries.delete(key);
          throw error;
        },
      );
    }
    this.entries.set(key, entry);
    while (this.entries.size > this.limit) this.entries.delete(this.entries.keys().next().value);
    return entry;
  }
}

export class Pictures {
  constructor(clip) {
    this.base = `clip/${clip}`;
    this.frames = new Cache(FRAMES_KEPT[1], (key, urgent) => getBitmap(`${this.base}/frame/${key}`, undefined, urgent));
    this.masks = new Cache(MASKS_KEPT[1], (key) => this.loadMask(key));
    this.thumbs = new Cache(400, (index) => getBitmap(`${this.base}/frame/${index}.thumb`, undefined, false));
  }

  setSize(width, height) {
    this.size = { width, height };
    const kept = (share, [least, most]) => Math.min(Math.max(Math.floor((share * BYTES_KEPT) / (4 * width * height)), least), most);
    this.frames.limit = kept(1, FRAMES_KEPT);
    this.masks.limit = kept(0.8, MASKS_KEPT); // ids, and what is painted of them
  }

  get ahead() {
    return Math.min(AHEAD, this.frames.limit - 4); // others would be given up before they are played
  }

  // exact: without the losses of JPEG, for looking at single pixels.
  frame(index, exact = false, urgent = true) {
    return this.frames.get(`${index}.${exact ? "png" : "jpg"}`, urgent);
  }

  mask(index, revision) {
    return this.masks.get(`${index}.ids?${revision}`);
  }

  async loadMask(key) {
    return { ...this.size, ids: await getBytes(`${this.base}/mask/${key}`), painted: null, look: "" };
  }
}

// The object ids in a picture of a stream, whose grey values they are.
export function idsOf(bitmap) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const ids = new Uint8Array(width * height);
  for (let i = 0; i < ids.length; i++) ids[i] = rgba[4 * i];
  return { width, height, ids, painted: null, look: "" };
}

// The mask as a picture. look: {colours: id -> [r, g, b], hidden: Set of ids, opacity: 0 to 1, key: names all of it}
export function paint(mask, look) {
  if (mask.painted && mask.look === look.key) return mask.painted;
  const { width, height, ids } = mask;
  const inner = new Uint32Array(256);
  const edge = new Uint32Array(256);
  for (let id = 1; id < 256; id++) {
    if (look.hidden.has(id) || !look.colours[id]) continue;
    const [r, g, b] = look.colours[id];
    const packed = r | (g << 8) | (b << 16);
    inner[id] = packed | (Math.round(255 * look.opacity) << 24);
    edge[id] = (packed | (255 << 24)) >>> 0;
  }
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const id = ids[i];
      if (!id) continue;
      const border =
        (x > 0 && ids[i - 1] !== id) || (x + 1 < width && ids[i + 1] !== id) ||
        (y > 0 && ids[i - width] !== id) || (y + 1 < height && ids[i + width] !== id);
      pixels[i] = border ? edge[id] : inner[id];
    }
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  mask.painted = canvas;
  mask.look = look.key;
  return canvas;
}
