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
  expect(await page.evaluate(() => window.attentionLab.command('{"type":"lose_device"}'))).toBe(true);
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
