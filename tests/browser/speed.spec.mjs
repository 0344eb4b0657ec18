// The place Speed and memory: a sweep, its charts and files.
import { readFile } from 'node:fs/promises';
import { test, expect } from './lab.mjs';

async function measure(page, from, to) {
  await page.locator('#sweep-from').selectOption(String(from));
  await page.locator('#sweep-to').selectOption(String(to));
  await page.locator('#sweep-start').click();
  await expect(page.locator('#sweep-status')).toContainText('Done', { timeout: 90_000 });
}

async function saved(page, button) {
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator(button).click()]);
  return readFile(await download.path(), 'utf8');
}

test('a sweep runs, is drawn, found in words, and saved', async ({ lab }) => {
  test.setTimeout(120_000);
  const page = await lab.open('?v=1&view=speed&variant=full,linear&heads=2&dim=32');
  await expect(page.locator('#sweep-start')).toBeEnabled({ timeout: 30_000 });
  await measure(page, 32, 128);
  await expect(page.locator('#chart-time [aria-label=dot] circle')).toHaveCount(6);
  await expect(page.locator('#chart-bytes [aria-label=dot] circle')).toHaveCount(6);
  await expect(page.locator('#findings')).toContainText('Linear');
  await expect(page.locator('#fits tbody tr')).toHaveCount(2);
  await expect(page.locator('#anatomy dt')).toHaveCount(2);

  const file = JSON.parse(await saved(page, '#save-json'));
  expect(file.schema).toBe(1);
  expect(file.rows.map((row) => [row.variant, row.length]).sort()).toEqual(
    ['full', 'linear'].flatMap((id) => [32, 64, 128].map((n) => [id, n])).sort(),
  );
  for (const row of file.rows) {
    expect(row.time_ms.median).toBeGreaterThan(0);
    expect(row.bytes.peak).toBeGreaterThan(0);
    expect([row.heads, row.dim]).toEqual([2, 32]);
  }
  expect((await saved(page, '#save-csv')).trim().split('\n').length).toBe(7);
  expect(await saved(page, '#save-svg')).toContain('<svg');

  // Another machine's file, laid over: half as long, and named.
  const other = { ...file, adapter: 'Another machine', rows: file.rows.map((row) => ({ ...row, time_ms: { ...row.time_ms, median: row.time_ms.median / 2, min: row.time_ms.min / 2, max: row.time_ms.max / 2 } })) };
  await page.locator('#open-result').setInputFiles({ name: 'other.json', mimeType: 'application/json', buffer: Buffer.from(JSON.stringify(other)) });
  await expect(page.locator('#chart-time [aria-label=dot] circle')).toHaveCount(12);
  await page.locator('#open-result').setInputFiles({ name: 'bad.json', mimeType: 'application/json', buffer: Buffer.from('{"no":"result"}') });
  await expect(page.locator('#actions [role=status]')).toContainText('bad.json');
});

test('a sweep can be cancelled', async ({ lab }) => {
  const page = await lab.open('?v=1&view=speed&variant=full,full_naive');
  await expect(page.locator('#sweep-start')).toBeEnabled({ timeout: 30_000 });
  await page.locator('#sweep-to').selectOption('16384');
  await page.locator('#sweep-start').click();
  await expect(page.locator('#sweep-cancel')).toBeVisible();
  await page.locator('#sweep-cancel').click();
  await expect(page.locator('#sweep-status')).toContainText('Cancelled', { timeout: 15_000 });
});

test('a hidden page measures nothing, and goes on when it is seen again', async ({ lab }) => {
  const page = await lab.open('?v=1&view=speed&variant=full,sliding_window,linear');
  await expect(page.locator('#sweep-start')).toBeEnabled({ timeout: 30_000 });
  await page.locator('#sweep-start').click();
  await expect(page.locator('#chart-time [aria-label=dot] circle').first()).toBeVisible({ timeout: 60_000 });
  const hide = (hidden) =>
    page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
  const done = async () => Number(/^(\d+)/.exec(await page.locator('#sweep-status').textContent())?.[1] ?? -1);
  await hide(true);
  // What was being measured may still come in.
  await page.waitForTimeout(2500);
  const before = await done();
  await page.waitForTimeout(2500);
  expect(await done()).toBe(before);
  await hide(false);
  await expect.poll(done, { timeout: 60_000 }).toBeGreaterThan(before);
  await page.locator('#sweep-cancel').click();
});
