// The place Speed and memory: a sweep, its charts and files.
import { readFile } from 'node:fs/promises';
import { PNG } from 'pngjs';
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

  const file = JSON.parse(await saved(page, '#save-json'));
  const stages = file.rows.map((row) => [row.variant, row.length, row.time_ms.median, row.stages_ms]);
  await expect(page.locator('#anatomy dt'), JSON.stringify(stages)).toHaveCount(2);
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

test('the forms of a pattern are raced, and told in words for each block size', async ({ lab }) => {
  test.setTimeout(180_000);
  const page = await lab.open('?v=1&view=speed&heads=1&dim=16');
  const forms = page.locator('#forms');
  await expect(forms.locator('#forms-start')).toBeEnabled({ timeout: 30_000 });
  // Nothing but patterns can be raced, the usual one first.
  await expect(forms.locator('#forms-pattern option')).toHaveText(['Sliding window', /strided/, /fixed/, 'Cascade', /LogSparse/, /BlockBERT/, 'Longformer', 'BigBird', 'Your own rule']);
  await expect(forms.locator('#forms-pattern')).toHaveValue('sliding_window');
  await forms.locator('#forms-pattern').selectOption('longformer');
  await forms.locator('#forms-length').selectOption('256');
  await forms.locator('#forms-start').click();
  await expect(page.locator('#sweep-start')).toBeDisabled();
  await expect(forms.locator('#forms-status')).toHaveText('Done.', { timeout: 150_000 });
  await expect(page.locator('#sweep-start')).toBeEnabled();
  const rows = forms.locator('#forms-table tbody tr');
  await expect(rows).toHaveCount(8);
  for (const row of await rows.all()) await expect(row).toContainText(/\d (ms|µs)/);
  const findings = forms.locator('#forms-findings');
  await expect(findings).toContainText('Longformer at 256 tokens allows');
  await expect(findings).toContainText(/In blocks of 64 it takes [\d.]+\s% of the time of full attention/);
  await expect(forms.locator('tr[data-chosen=true]')).toHaveAttribute('data-block', '64');
  await forms.locator('#forms-block').fill('0');
  await expect(findings).toContainText('blocks of 16');
  await expect(forms.locator('tr[data-chosen=true]')).toHaveAttribute('data-block', '16');

  await page.locator('#state-line select').first().selectOption('1');
  await forms.locator('#forms-pattern').selectOption('bigbird');
  await forms.locator('#forms-start').click();
  await expect(forms.locator('#forms-status')).toContainText('future tokens would leak');
});

test('a race of forms can be cancelled', async ({ lab }) => {
  const page = await lab.open('?v=1&view=speed&variant=longformer');
  await expect(page.locator('#forms-start')).toBeEnabled({ timeout: 30_000 });
  await expect(page.locator('#forms-pattern')).toHaveValue('longformer');
  await page.locator('#forms-length').selectOption('2048');
  await page.locator('#forms-start').click();
  await page.locator('#forms-cancel').click();
  await expect(page.locator('#forms-status')).toHaveText('Cancelled.', { timeout: 30_000 });
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

test('charts are saved as pictures that show them', async ({ lab }) => {
  const page = await lab.open('?v=1&view=speed&variant=full,linear&heads=1&dim=16&theme=light');
  await expect(page.locator('#sweep-start')).toBeEnabled({ timeout: 30_000 });
  await measure(page, 32, 64);
  const downloads = [];
  page.on('download', (download) => downloads.push(download));
  await page.locator('#save-png').click();
  await expect.poll(() => downloads.length).toBe(2);
  expect(downloads.map((download) => download.suggestedFilename())).toEqual(['attention-lab-time.png', 'attention-lab-bytes.png']);
  for (const download of downloads) {
    const png = PNG.sync.read(await readFile(await download.path()));
    expect(png.width).toBeGreaterThan(600);
    const near = (at, [r, g, b]) => Math.abs(png.data[at] - r) + Math.abs(png.data[at + 1] - g) + Math.abs(png.data[at + 2] - b) < 24;
    const count = (colour) => {
      let found = 0;
      for (let at = 0; at < png.data.length; at += 4) if (near(at, colour)) found += 1;
      return found;
    };
    // The page's ground, and the two families' lines and dots.
    expect(count([0xfc, 0xfb, 0xf8]) / (png.width * png.height)).toBeGreaterThan(0.8);
    expect(count([0x4b, 0x4f, 0x58]), 'full attention').toBeGreaterThan(200);
    expect(count([0x1d, 0x7a, 0x5c]), 'linear attention').toBeGreaterThan(200);
  }
});

for (const width of [360, 1280, 2560]) {
  test(`names stand beside their lines without being cut at ${width} px`, async ({ lab, page }) => {
    await page.setViewportSize({ width, height: 900 });
    await lab.open('?v=1&view=speed&variant=full,full_naive,sliding_window&heads=1&dim=16');
    await expect(page.locator('#sweep-start')).toBeEnabled({ timeout: 30_000 });
    await measure(page, 32, 64);
    const over = await page.locator('.chart svg [aria-label=text] text').evaluateAll((texts) => texts.map((text) => {
      const [label, chart] = [text.getBoundingClientRect(), text.ownerSVGElement.getBoundingClientRect()];
      return Math.max(label.right - chart.right, chart.left - label.left, label.bottom - chart.bottom);
    }));
    expect(over.length).toBe(6);
    expect(Math.max(...over)).toBeLessThanOrEqual(1);
  });
}

test('a broken or hostile result file is refused in words', async ({ lab }) => {
  const page = await lab.open('?v=1&view=speed&variant=full,linear');
  await expect(page.locator('#sweep-start')).toBeEnabled({ timeout: 30_000 });
  const row = { variant: 'full', params: {}, causal: false, batch: 1, heads: 1, dim: 16, length: 64, bytes: { peak: 9, by_category: {} }, flops: 1 };
  const file = { schema: 1, commit: 'x', adapter: 'x', driver: 'x', browser: null, limits: {}, timer_quantum_ns: null };
  const hostile = {
    'nothing.json': '',
    'noise.json': '\u0000\ufffd\u0001 not JSON',
    'deep.json': '['.repeat(100_000),
    'number.json': '1e999999',
    'rows.json': JSON.stringify({ ...file, rows: 7 }),
    'future.json': JSON.stringify({ ...file, schema: 999, rows: [] }),
    'large.json': `"${'x'.repeat(17 << 20)}"`,
  };
  const notice = page.locator('#actions [role=status]');
  const open = (name, text) => page.locator('#open-result').setInputFiles({ name, mimeType: 'application/json', buffer: Buffer.from(text) });
  for (const [name, text] of Object.entries(hostile)) {
    await open(name, text);
    await expect(notice, name).toContainText(name);
    await expect(page.locator('.chart circle'), name).toHaveCount(0);
  }
  // Rows that cannot be are left out and named; those that can are drawn, and nothing in them is taken for markup.
  const markup = '<img src=x onerror="window.broken=1">';
  const time_ms = { median: 1, min: 1, max: 1, repeats: 3, how: 'wall' };
  const rows = [{ ...row, time_ms }, { ...row, length: -5, time_ms }, { ...row, length: 1e300, time_ms }, { ...row, length: 128, time_ms: { ...time_ms, median: 'soon' } }];
  await open('mixed.json', JSON.stringify({ ...file, adapter: markup, rows }));
  await expect(page.locator('#chart-time [aria-label=dot] circle')).toHaveCount(1);
  await expect(notice).not.toBeEmpty();
  expect(await page.evaluate(() => [window.broken, document.querySelectorAll('.chart img').length])).toEqual([undefined, 0]);
});
