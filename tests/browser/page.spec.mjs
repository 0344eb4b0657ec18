// The page as a visitor first meets it.
import { brotliCompressSync } from 'node:zlib';
import { test, expect } from './lab.mjs';

// The same budget as in xtask/src/web.rs, here for what is really loaded.
const BUDGET_BYTES = 1_200_000;

test('the page loads without errors and shows its title', async ({ lab }) => {
  const page = await lab.open();
  await expect(page).toHaveTitle(/Attention Lab/);
  await expect(page.locator('body')).toContainText(/attention/i);
  await page.waitForLoadState('networkidle');
});

test('the first view stays within its budget and has the right types', async ({ lab }) => {
  const page = await lab.open();
  await page.waitForLoadState('networkidle');
  const sizes = new Map();
  for (const response of lab.responses) {
    if (!response.url().startsWith('http') || response.status() !== 200) continue;
    // The picture is drawn first and then again with the trained model's weights.
    if (response.url().includes('/weights/')) continue;
    // The page and its worker load the same module; a browser that may cache fetches it once.
    if (sizes.has(response.url())) continue;
    const body = await response.body();
    sizes.set(response.url(), brotliCompressSync(body).length);
    expect(response.headers()['cache-control']).toBe('no-store');
    if (response.url().endsWith('.wasm')) expect(response.headers()['content-type']).toBe('application/wasm');
  }
  expect([...sizes.keys()].some((url) => url.endsWith('_bg.wasm')), 'the wasm module is loaded').toBe(true);
  const total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  expect(total, [...sizes].map((entry) => entry.join(' ')).join('\n')).toBeLessThanOrEqual(BUDGET_BYTES);
});

test('this browser has WebGPU and can take it away', async ({ lab }) => {
  const page = await lab.open();
  const adapter = await page.evaluate(async () => {
    const found = await navigator.gpu.requestAdapter();
    return found && [...found.features];
  });
  expect(adapter).toContain('timestamp-query');
  await lab.open('', { gpu: false });
  expect(await page.evaluate(() => navigator.gpu)).toBeUndefined();
});

test('the chart library loads on demand', async ({ lab }) => {
  const page = await lab.open();
  const drawn = await page.evaluate(async () => {
    const { Plot, d3 } = await import(new URL('vendor/charts.js', document.baseURI).href);
    const figure = Plot.plot({ x: { type: 'log' }, marks: [Plot.line([[1, 1], [10, 3]])] });
    return [figure.tagName, figure.querySelectorAll('path').length > 0, typeof d3.scaleLog];
  });
  expect(drawn).toEqual(['svg', true, 'function']);
});
