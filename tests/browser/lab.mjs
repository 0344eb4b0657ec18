// What the specs share: opening the page with and without WebGPU, what went wrong in it, and reading pixels.
//
//   import { test, expect, pixels } from './lab.mjs';
//
//   test('a plate is drawn', async ({ lab }) => {
//     const page = await lab.open('?variant=full&n=64');        // WebGPU on SwiftShader
//     const image = await pixels(page.locator('canvas').first());
//     expect(image.distinct()).toBeGreaterThan(2);
//   });
//
// `lab.open` takes a path relative to the page ('embed.html?…' too) and `{ gpu: false }` for a browser without WebGPU.
// After each test the fixture fails it if the page logged an error, threw, or asked another host for something;
// a test that provokes errors says which it expects: `lab.expectErrors(/device was lost/)`.
import { test as base, expect } from '@playwright/test';
import { PNG } from 'pngjs';

export { expect };

export const test = base.extend({
  lab: async ({ page, baseURL }, use) => {
    const lab = new Lab(page, baseURL);
    await use(lab);
    expect(lab.errors.filter((text) => !lab.expected.some((pattern) => pattern.test(text)))).toEqual([]);
    expect(lab.foreign, 'requests to another host').toEqual([]);
  },
});

class Lab {
  constructor(page, baseURL) {
    this.page = page;
    this.baseURL = baseURL;
    /** Texts of console errors, uncaught exceptions and failed requests, in the page, its frames and its workers. */
    this.errors = [];
    /** Addresses of requests that left the page's own server. */
    this.foreign = [];
    /** Every response, for tests that look at what was loaded. */
    this.responses = [];
    this.expected = [];
    const origin = new URL(baseURL).origin;
    page.on('console', (message) => {
      if (message.type() === 'error') this.errors.push(message.text());
    });
    page.on('pageerror', (error) => this.errors.push(String(error)));
    page.on('requestfailed', (request) => {
      // A request that the page itself gave up (a worker ended, a frame left) is no failure.
      const reason = request.failure()?.errorText ?? '';
      if (reason !== 'net::ERR_ABORTED') this.errors.push(`${request.url()}: ${reason}`);
    });
    page.on('request', (request) => {
      const { protocol, origin: from } = new URL(request.url());
      if (protocol.startsWith('http') && from !== origin) this.foreign.push(request.url());
    });
    page.on('response', (response) => {
      this.responses.push(response);
      if (response.status() >= 400) this.errors.push(`${response.url()}: ${response.status()}`);
    });
  }

  /**
   * Opens a path of the page.
   * @param {string} path relative: '', '?variant=full&n=64', 'embed.html?run=auto'
   * @param {{gpu?: boolean}} options `gpu: false` takes WebGPU away, in the page and in its workers
   */
  async open(path = '', { gpu = true } = {}) {
    if (!gpu) await this.withoutWebGPU();
    await this.page.goto(new URL(path, this.baseURL).href);
    return this.page;
  }

  /** Messages matching these patterns do not fail the test. */
  expectErrors(...patterns) {
    this.expected.push(...patterns);
  }

  // An init script reaches documents only; a worker's own global is reached by putting a line before its script, which
  // a static import chain cannot run ahead of, since the page's workers are modules that start the engine later.
  async withoutWebGPU() {
    const off = "Object.defineProperty(Object.getPrototypeOf(navigator), 'gpu', { get: () => undefined, configurable: true });\n";
    await this.page.addInitScript(off);
    await this.page.context().route('**/*worker*.js', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: off + (await response.text()) });
    });
  }
}

/**
 * The pixels that a person sees in an element: a screenshot, so it works for an OffscreenCanvas that a worker draws.
 * @param {import('@playwright/test').Locator} locator
 */
export async function pixels(locator) {
  const png = PNG.sync.read(await locator.screenshot());
  return {
    width: png.width,
    height: png.height,
    /** [red, green, blue, alpha], each 0–255, of the pixel at a share 0–1 of width and height. */
    at(x, y) {
      const column = Math.min(png.width - 1, Math.floor(x * png.width));
      const row = Math.min(png.height - 1, Math.floor(y * png.height));
      const start = 4 * (row * png.width + column);
      return [...png.data.subarray(start, start + 4)];
    },
    /** How many different colours there are; 1 means that nothing was drawn. */
    distinct() {
      const seen = new Set();
      for (let at = 0; at < png.data.length; at += 4) seen.add(png.data.readUInt32LE(at));
      return seen.size;
    },
  };
}
