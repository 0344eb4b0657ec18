// What goes wrong, or is missing: no WebGPU, a lost device, a narrow screen, a hidden page.
import { test, expect } from './lab.mjs';

test('without WebGPU the CPU computes, and the page says so', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=linear&n=128', { gpu: false });
  await expect(page.locator('#banner-adapter')).toContainText('WebGPU', { timeout: 30_000 });
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await expect(page.locator('#numbers')).toContainText('%');
});

test('a lost device is made again and the plate comes back', async ({ lab }) => {
  test.setTimeout(120_000);
  lab.expectErrors(/lost|destroyed/i);
  const page = await lab.open('?v=1&variant=sliding_window&n=64&view=mask');
  await page.locator('#use-gpu').click({ timeout: 30_000 });
  await expect(page.locator('.colophon')).toContainText('webgpu', { timeout: 30_000 });
  const figure = page.locator('#plate-0');
  await expect(figure).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  const draws = Number(await figure.getAttribute('data-draws'));
  expect(await page.evaluate(() => window.attentionLab.command('"lose_device"'))).toBe(true);
  await expect(page.locator('#banner-lost')).toHaveAttribute('data-recovered', 'true', { timeout: 30_000 });
  await expect.poll(async () => Number(await figure.getAttribute('data-draws')), { timeout: 30_000 }).toBeGreaterThan(draws);
});

test('what a method cannot do is refused with its reason, and the other plate stays', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=sliding_window,linformer&n=64&view=weights');
  await expect(page.locator('#plate-1')).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  await page.locator('#causal').check();
  await expect(page.locator('#banner-refused')).toContainText('Linformer');
  await expect(page.locator('#plate-1')).not.toHaveAttribute('data-drawn', /./);
  await expect(page.locator('#plate-1 .wait')).not.toBeEmpty();
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact');
  await page.locator('#causal').uncheck();
  await expect(page.locator('#plate-1')).toHaveAttribute('data-drawn', 'exact');
  await expect(page.locator('#banner-refused')).toHaveCount(0);
});

for (const path of ['', '?v=1&variant=full,sliding_window', '?v=1&view=speed', 'embed.html?v=1&run=auto', 'tutorial.html']) {
  test(`nothing is wider than a telephone: ${path || 'the page'}`, async ({ lab, page }) => {
    await page.setViewportSize({ width: 360, height: 740 });
    await lab.open(path);
    await page.waitForLoadState('networkidle');
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(over).toBeLessThanOrEqual(0);
  });
}

test('the first picture does not jump when the page takes over', async ({ lab, page }) => {
  // The frame is measured before the module is there, and after.
  await page.route('**/*.wasm', async (route) => {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await route.continue();
  });
  await page.setViewportSize({ width: 1280, height: 900 });
  await lab.open();
  const place = () => page.locator('.plate .frame').first().boundingBox();
  const before = await place();
  await expect(page.locator('#plate-0')).toBeVisible({ timeout: 30_000 });
  const after = await place();
  expect(Math.abs(after.x - before.x)).toBeLessThanOrEqual(2);
  expect(Math.abs(after.width - before.width)).toBeLessThanOrEqual(2);
});

test('what is too long is refused, and one click takes the nearest that is not', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full_naive&n=16384&heads=1&dim=16&view=mask');
  const banner = page.locator('#banner-refused');
  await expect(banner).toContainText('nearest', { timeout: 30_000 });
  const button = banner.getByRole('button', { name: /^Use [\d,]+ tokens$/ });
  const length = Number((await button.textContent()).replace(/\D/g, ''));
  expect(length).toBeGreaterThan(1000);
  expect(length).toBeLessThan(16384);
  await button.click();
  await expect(banner).toHaveCount(0);
  await expect(page.locator('#state-line')).toContainText(`${length.toLocaleString('en')} tokens`);
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', /./, { timeout: 60_000 });
  await expect(banner).toHaveCount(0);
});

test('memory that runs out is a refusal, and less goes on', async ({ lab, page }) => {
  // No test can wait for a real adapter to be full, so the worker's device says that it is for buffers from 100 kB on.
  const full = `{
    const scopes = new WeakMap();
    const { pushErrorScope, popErrorScope, createBuffer } = GPUDevice.prototype;
    const of = (device) => scopes.get(device) ?? (scopes.set(device, []), scopes.get(device));
    GPUDevice.prototype.pushErrorScope = function (filter) { of(this).push({ filter, large: false }); return pushErrorScope.call(this, filter); };
    GPUDevice.prototype.createBuffer = function (descriptor) {
      if (descriptor.size >= 100_000) for (const scope of of(this)) scope.large = true;
      return createBuffer.call(this, descriptor);
    };
    GPUDevice.prototype.popErrorScope = async function () {
      const { filter, large } = of(this).pop();
      const error = await popErrorScope.call(this);
      return filter === 'out-of-memory' && large ? new GPUOutOfMemoryError('no memory left') : error;
    };
  }\n`;
  await page.context().route('**/worker.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: full + (await response.text()) });
  });
  await lab.open('?v=1&variant=full&view=mask&n=512&heads=4&dim=64');
  await page.locator('#use-gpu').click({ timeout: 30_000 });
  const banner = page.locator('#banner-refused');
  await expect(banner).toContainText('memory', { timeout: 60_000 });
  await expect(banner).toContainText('shorter');
  await expect(page.locator('#plate-0 .wait')).toContainText('memory');
  await page.locator('#length-exact').fill('32');
  await page.locator('#length-exact').press('Enter');
  await expect(page.locator('#plate-0')).toHaveAttribute('data-drawn', 'exact', { timeout: 60_000 });
  await expect(banner).toHaveCount(0);
});
