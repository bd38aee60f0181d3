// Repeats what takes time, and leaves most of the time to others: tracking computes on the same processor cores.

const SHARE = 0.04; // of the time that is spent on it
const LONGEST = 2000; // milliseconds of rest, so that a slow machine's page moves too

export class Pace {
  // act: what is repeated; it may return a promise. clock: {now(), rest(milliseconds), painted()}
  constructor(act, clock = CLOCK) {
    this.act = act;
    this.clock = clock;
    this.asked = false;
    this.running = null;
  }

  // Asks for it to be done once more, now or after the rest; several calls in the meantime are one.
  ask() {
    this.asked = true;
    this.running ??= this.run().finally(() => (this.running = null));
  }

  async run() {
    const { now, rest, painted } = this.clock;
    while (this.asked) {
      this.asked = false;
      const begun = now();
      await this.act();
      await painted();
      await rest(Math.min((now() - begun) * (1 / SHARE - 1), LONGEST));
    }
  }
}

const CLOCK = {
  now: () => performance.now(),
  rest: (milliseconds) => new Promise((done) => setTimeout(done, milliseconds)),
  // In a hidden tab this waits until the tab is looked at.
  painted: () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
};
