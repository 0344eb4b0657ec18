// The place Train: runs side by side, driven, drawn and judged.
import { readFile } from 'node:fs/promises';
import { apart } from '../../web/labels.js';
import { test, expect } from './lab.mjs';

// So small that a step takes milliseconds on any adapter.
const SMALL = '?v=1&view=train&task=copy&train.length=8&train.width=16&heads=2&train.batch=8&train.rate=0.01';

const step = async (page) => Number(/(\d[\d,]*)/.exec(await page.locator('#race-status').textContent())?.[1].replaceAll(',', '') ?? -1);
const doing = (page, what) => expect(page.locator('#race-controls')).toHaveAttribute('data-doing', what, { timeout: 90_000 });

async function ready(lab, more = '') {
  const page = await lab.open(SMALL + more);
  await doing(page, 'ready');
  return page;
}

for (const gpu of [true, false]) {
  test(`two models learn to copy, ${gpu ? 'with' : 'without'} WebGPU`, async ({ lab }) => {
    test.setTimeout(180_000);
    const page = await lab.open(`${SMALL}&variant=full,linear&train.steps=120`, { gpu });
    await doing(page, 'ready');
    await expect(page.locator('#race-status')).toContainText('on this machine');
    await page.locator('#race-start').click();
    await doing(page, 'done');
    await expect(page.locator('#runs tbody tr')).toHaveCount(2);
    // The loss of the last judgement is below that of guessing among twelve symbols, in both.
    for (const row of [0, 1]) {
      const cells = await page.locator('#runs tbody tr').nth(row).locator('td').allTextContents();
      expect(cells[2]).toBe('120');
      expect(Number(cells[3])).toBeLessThan(Math.log(12));
      expect(parseFloat(cells[4])).toBeGreaterThan(100 / 12);
    }
    for (const chart of ['loss', 'accuracy', 'distance']) {
      expect(await page.locator(`#chart-${chart} circle`).count()).toBeGreaterThan(1);
    }
    await expect(page.locator('#verdict')).toContainText('Next:');
  });
}

test('runs on the graphics adapter go on when the device is lost', async ({ lab }) => {
  test.setTimeout(300_000);
  lab.expectErrors(/lost|destroyed/i);
  const page = await lab.open(`${SMALL}&variant=full,linear&train.steps=10`);
  await doing(page, 'ready');
  await page.locator('#use-gpu').click();
  await expect(page.locator('.colophon')).toContainText('webgpu', { timeout: 60_000 });
  await page.locator('#race-start').click();
  await expect.poll(() => step(page), { timeout: 120_000 }).toBeGreaterThan(0);
  await page.evaluate(() => window.attentionLab.command('"lose_device"'));
  await expect(page.locator('#banner-lost')).toBeVisible({ timeout: 60_000 });
  await expect(page.locator('#race-controls')).toHaveAttribute('data-doing', 'done', { timeout: 200_000 });
  for (const row of [0, 1]) expect(await page.locator('#runs tbody tr').nth(row).locator('td').nth(2).textContent()).toBe('10');
});

test('a race is paused, stepped, resumed and stopped', async ({ lab }) => {
  test.setTimeout(180_000);
  const page = await ready(lab, '&variant=full,linear&train.steps=5000');
  await page.locator('#race-start').click();
  await doing(page, 'running');
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(3);
  await page.locator('#race-pause').click();
  await doing(page, 'paused');
  const at = await step(page);
  await page.waitForTimeout(700);
  expect(await step(page)).toBe(at);
  await page.locator('#race-step').click();
  await expect.poll(() => step(page)).toBe(at + 1);
  await doing(page, 'paused');
  // An edit says what a restart would change, and changes nothing yet.
  await page.locator('#train-layers').fill('3');
  await page.locator('#train-layers').blur();
  await expect(page.locator('#race-changed')).toContainText('layers 2 → 3');
  await page.locator('#race-pause').click();
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(at + 1);
  await page.locator('#race-stop').click();
  await doing(page, 'stopped');
  // A copy of the first goes on with the form's settings, or says why it cannot.
  await page.locator('#train-layers').fill('2');
  await page.locator('#train-layers').blur();
  await page.locator('#train-rate').fill('0.002');
  await page.locator('#train-rate').blur();
  await page.locator('#copy-0').click();
  await expect(page.locator('#runs tbody tr')).toHaveCount(3);
  await expect(page.locator('#runs tbody tr').nth(2)).toContainText('copied at step');
});

test('a hidden page trains nothing, and goes on when it is seen again', async ({ lab }) => {
  test.setTimeout(180_000);
  const page = await ready(lab, '&variant=full,linear&train.steps=5000');
  await page.locator('#race-start').click();
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(3);
  const hide = (hidden) =>
    page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => value });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
  await hide(true);
  // The turn at hand may still come in.
  await page.waitForTimeout(1500);
  const before = await step(page);
  await page.waitForTimeout(1500);
  expect(await step(page)).toBe(before);
  await hide(false);
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(before);
});

test('a race outlives the page, and a run its browser', async ({ lab }) => {
  test.setTimeout(240_000);
  const page = await ready(lab, '&variant=full,linear&train.steps=5000');
  await page.locator('#race-start').click();
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(3);
  await page.locator('#race-pause').click();
  await doing(page, 'paused');
  const at = await step(page);
  const figures = await page.locator('#runs tbody tr').first().locator('td').nth(2).textContent();
  // What was reached is on the shelf a moment later.
  await page.waitForTimeout(500);
  await page.reload();
  await doing(page, 'paused');
  expect(await step(page)).toBe(at);
  expect(await page.locator('#runs tbody tr').first().locator('td').nth(2).textContent()).toBe(figures);
  await page.locator('#race-pause').click();
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(at);
  await page.locator('#race-pause').click();
  await doing(page, 'paused');
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#save-0').click()]);
  expect(download.suggestedFilename()).toMatch(/^full-\d+\.safetensors$/);
  const file = await readFile(await download.path());
  const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString());
  expect(JSON.parse(header.__metadata__.config).task.id).toBe('copy');
  const open = (name, buffer) => page.locator('#open-run').setInputFiles({ name, mimeType: 'application/octet-stream', buffer });
  await open('full.safetensors', file);
  await expect(page.locator('#runs tbody tr')).toHaveCount(3);
  await open('broken.safetensors', file.subarray(0, 200));
  await expect(page.locator('#banner-refused')).toContainText('safetensors');
  await expect(page.locator('#runs tbody tr')).toHaveCount(3);
});

/** The race rests at a step that is on the shelf, or is told not to be. */
async function restsBehind(page, at) {
  await page.locator('#race-pause').click();
  await doing(page, 'running');
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(at);
  await page.locator('#race-pause').click();
  await doing(page, 'paused');
  return step(page);
}

test('a full shelf is told, keeps what it had, and takes more when there is room', async ({ lab }) => {
  test.setTimeout(240_000);
  // The worker's store refuses the last write of a transaction while it is told to.
  const full = `{
    let full = false;
    const told = new BroadcastChannel('room');
    told.onmessage = (event) => (full = event.data);
    const put = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (...given) {
      if (full && given[1] === 'race') throw new DOMException('no room', 'QuotaExceededError');
      return put.apply(this, given);
    };
  }\n`;
  await lab.page.context().route('**/worker.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: full + (await response.text()) });
  });
  const page = await ready(lab, '&variant=full&train.steps=50000');
  await page.locator('#race-start').click();
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(3);
  await page.locator('#race-pause').click();
  await doing(page, 'paused');
  const kept = await step(page);
  await page.waitForTimeout(1000);
  await expect(page.locator('#not-kept')).toHaveText('');
  const fill = (full) => page.evaluate((full) => new BroadcastChannel('room').postMessage(full), full);
  await fill(true);
  const further = await restsBehind(page, kept);
  await expect(page.locator('#not-kept')).toContainText('no more room');
  // A file needs no room on the shelf.
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#save-0').click()]);
  expect(download.suggestedFilename()).toBe(`full-${further}.safetensors`);
  expect((await readFile(await download.path())).length).toBeGreaterThan(1000);
  await page.reload();
  await doing(page, 'paused');
  expect(await step(page)).toBe(kept);
  await fill(true);
  await restsBehind(page, kept);
  await expect(page.locator('#not-kept')).toContainText('no more room');
  await fill(false);
  const last = await restsBehind(page, await step(page));
  await expect(page.locator('#not-kept')).toHaveText('');
  await page.reload();
  await doing(page, 'paused');
  expect(await step(page)).toBe(last);
});

test('of two tabs the first keeps its runs, and the second when it is asked to', async ({ lab, context }) => {
  test.setTimeout(300_000);
  const first = await ready(lab, '&variant=full&train.steps=50000');
  await first.locator('#race-start').click();
  await expect.poll(() => step(first), { timeout: 60_000 }).toBeGreaterThan(3);
  await first.locator('#race-pause').click();
  await doing(first, 'paused');
  const kept = await step(first);
  await first.waitForTimeout(1000);
  const second = await context.newPage();
  await second.goto(first.url().replace('variant=full', 'variant=linear'));
  await doing(second, 'ready');
  await expect(second.locator('#not-kept')).toContainText('Another tab');
  await second.locator('#race-start').click();
  await expect.poll(() => step(second), { timeout: 60_000 }).toBeGreaterThan(3);
  await second.locator('#race-pause').click();
  await doing(second, 'paused');
  await second.waitForTimeout(1000);
  // The first finds its own again.
  await first.reload();
  await doing(first, 'paused');
  await expect(first.locator('#runs tbody tr')).toContainText('Full');
  expect(await step(first)).toBe(kept);
  await first.close();
  await expect(second.locator('#keep-these')).toBeVisible();
  await expect(second.locator('#runs tbody tr')).toContainText('Linear');
  const own = await step(second);
  await second.locator('#keep-these').click();
  await expect(second.locator('#not-kept')).toHaveText('');
  // Both are there, and stay.
  await expect(second.locator('#runs tbody tr')).toHaveCount(2);
  await second.reload();
  await doing(second, 'paused');
  const steps = (row) => second.locator('#runs tbody tr').nth(row).locator('td').nth(2).textContent();
  await expect(second.locator('#runs tbody tr').nth(0)).toContainText('Full');
  await expect(second.locator('#runs tbody tr').nth(1)).toContainText('Linear');
  expect([await steps(0), await steps(1)].map((text) => Number(text.replaceAll(',', '')))).toEqual([kept, own]);
  // It is asked whether that is meant.
  second.once('dialog', (dialog) => dialog.dismiss());
  await second.locator('#remove-0').click();
  await expect(second.locator('#runs tbody tr')).toHaveCount(2);
  second.once('dialog', (dialog) => dialog.accept());
  await second.locator('#remove-0').click();
  await expect(second.locator('#runs tbody tr')).toHaveCount(1);
  await expect(second.locator('#runs tbody tr')).toContainText('Linear');
  await expect(second.locator('#remove-0')).toBeDisabled();
});

test('an encoder–decoder is trained where it is chosen, and an encoder where the task takes one', async ({ lab }) => {
  test.setTimeout(180_000);
  const page = await ready(lab, '&variant=full&train.steps=20');
  await expect(page.locator('#train-architecture')).toHaveValue('decoder');
  await expect(page.locator('#train-architecture option[value="encoder"]')).toBeDisabled();
  await page.locator('#train-architecture').selectOption('encoder_decoder');
  await expect.poll(() => page.url()).toContain('train.architecture=encoder_decoder');
  await doing(page, 'ready');
  await page.locator('#race-start').click();
  await doing(page, 'done');
  await page.locator('#train-architecture').selectOption('decoder');
  await expect(page.locator('#race-changed')).toContainText('encoder–decoder → decoder');
  await page.locator('#task').selectOption('masked_lm');
  await expect(page.locator('#train-architecture')).toHaveValue('encoder');
  await expect(page.locator('#train-architecture option[value="encoder"]')).toBeEnabled();
  await lab.open(`${SMALL}&train.architecture=encoder`);
  await expect(page.locator('#banner-link')).toContainText('decoder or encoder_decoder');
  await expect(page.locator('#train-architecture')).toHaveValue('decoder');
});

test('a recurrent network stands on its own where it is told to, and a decoder looks by a small network', async ({ lab }) => {
  test.setTimeout(180_000);
  const page = await ready(lab, '&variant=full&train.steps=20&train.architecture=encoder_decoder');
  await expect(page.locator('#train-block')).toHaveCount(0);
  await page.locator('#model-1').selectOption('gru');
  await expect(page.locator('#train-block')).toHaveValue('transformer');
  await doing(page, 'ready');
  await expect(page.locator('#runs tbody tr')).toHaveCount(2);
  await page.locator('#race-start').click();
  await doing(page, 'done');
  await page.locator('#train-block').selectOption('plain');
  await expect(page.locator('#race-changed')).toContainText('recurrent layers inside transformer layers → on their own');
  await page.locator('#train-cross').selectOption('bahdanau');
  await expect(page.locator('#race-changed')).toContainText('dot products → a small network (Bahdanau)');
  await expect.poll(() => page.url()).toContain('train.block=plain&train.cross=bahdanau');
  await page.locator('#race-start').click();
  await expect(page.locator('#race-changed')).toHaveText('');
  await doing(page, 'done');
  // Without feed-forward networks it has fewer weights than the transformer beside it.
  const weights = async (row) => Number((await page.locator('#runs tbody tr').nth(row).locator('td').nth(6).textContent()).replaceAll(',', ''));
  expect(await weights(1)).toBeLessThan(await weights(0));
  await page.locator('#train-architecture').selectOption('decoder');
  await expect(page.locator('#train-cross')).toHaveCount(0);
  await lab.open(`${SMALL}&variant=gru&train.block=bare`);
  await expect(page.locator('#banner-link')).toContainText('transformer or plain');
});

test('labels are set apart, each as near to its curve as the others let it', () => {
  const free = [{ y: 80, tall: 10 }, { y: 20, tall: 10 }];
  expect(apart(free, 0, 100)).toEqual([80, 20]);
  // Two of a height stand around the place that both want.
  expect(apart([{ y: 52, tall: 10 }, { y: 50, tall: 10 }], 0, 100)).toEqual([56, 46]);
  // At an edge they are moved away from it, and further ones with them.
  expect(apart([{ y: 99, tall: 10 }, { y: 98, tall: 10 }, { y: 80, tall: 20 }], 0, 100)).toEqual([95, 85, 70]);
  expect(apart([{ y: 1, tall: 10 }, { y: 3, tall: 10 }], 0, 100)).toEqual([5, 15]);
  expect(apart([], 0, 100)).toEqual([]);
  let state = 7;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  for (let trial = 0; trial < 200; trial++) {
    const labels = Array.from({ length: 1 + (trial % 6) }, () => ({ y: 200 * random(), tall: random() < 0.3 ? 24 : 12 }));
    const placed = apart(labels, 0, 200).map((y, at) => ({ from: y - labels[at].tall / 2, to: y + labels[at].tall / 2 }));
    placed.sort((a, b) => a.from - b.from);
    expect(placed[0].from).toBeGreaterThanOrEqual(-1e-9);
    expect(placed.at(-1).to).toBeLessThanOrEqual(200 + 1e-9);
    placed.slice(1).forEach((label, at) => expect(label.from).toBeGreaterThanOrEqual(placed[at].to - 1e-9));
  }
});

test('what is waited for is said, and labels of curves that end together do not overlap', async ({ lab, page }) => {
  test.setTimeout(180_000);
  await page.setViewportSize({ width: 360, height: 900 });
  await ready(lab, '&variant=full,full_naive,linear&train.steps=4000');
  await expect(page.locator('#verdict')).toContainText('Two models');
  await page.locator('#race-start').click();
  await expect(page.locator('#verdict')).toContainText('after step 50;');
  await expect(page.locator('#chart-loss circle').first()).toBeAttached({ timeout: 90_000 });
  await expect(page.locator('#verdict')).toContainText('stands here in words after step 4,000');
  await page.locator('#race-stop').click();
  await doing(page, 'stopped');
  await expect(page.locator('#verdict')).toContainText('no verdict');
  // The same mathematics twice: two curves that end in one place.
  for (const chart of ['loss', 'accuracy']) {
    const names = page.locator(`#chart-${chart} svg > g[aria-label="text"]`).last().locator('text');
    await expect(names).toHaveCount(3);
    const boxes = await names.evaluateAll((all) => all.map((name) => name.getBoundingClientRect().toJSON()));
    boxes.sort((a, b) => a.top - b.top);
    // A line's box is a little higher than its letters.
    for (const [at, box] of boxes.slice(1).entries()) expect(box.top).toBeGreaterThan(boxes[at].bottom - 3);
  }
});

test('what cannot be trained is refused in words, and the others are trained', async ({ lab }) => {
  const page = await ready(lab, '&variant=full,linformer&train.steps=20');
  await expect(page.locator('#runs tbody tr').nth(1)).toContainText('causal');
  await page.locator('#race-start').click();
  await doing(page, 'done');
  expect(await page.locator('#runs tbody tr').nth(0).locator('td').nth(2).textContent()).toBe('20');
});

for (const width of [360, 1280]) {
  test(`nothing of the place Train is wider than ${width} px`, async ({ lab, page }) => {
    await page.setViewportSize({ width, height: 900 });
    await ready(lab, '&variant=full,linear&train.steps=20');
    await page.locator('#race-start').click();
    await doing(page, 'done');
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
  });
}

test('a run is looked into while it trains', async ({ lab }) => {
  test.setTimeout(240_000);
  const page = await lab.open('?v=1&view=train&task=story&train.length=32&train.width=32&train.steps=100000&variant=full,sliding_window');
  await doing(page, 'ready');
  await page.locator('#race-start').click();
  await expect.poll(() => step(page), { timeout: 60_000 }).toBeGreaterThan(1);
  await page.locator('#look summary').click();
  const looked = async () => Number(/(\d[\d,]*)/.exec(await page.locator('#look-step').textContent())?.[1].replaceAll(',', '') ?? -1);
  await expect.poll(looked, { timeout: 60_000 }).toBeGreaterThan(0);
  // Every position is told, and each prediction says whether it is right.
  await expect(page.locator('#look-seen > span')).toHaveCount(32);
  const judged = await page.locator('#look-seen > span[data-right]').count();
  expect(judged).toBeGreaterThan(20);
  const wrong = await page.locator('#look-seen > span[data-right="false"]').count();
  expect(await page.locator('#look-seen s').count()).toBe(wrong);
  await expect(page.locator('#look .under').first()).toContainText(`${judged - wrong} of ${judged}`);
  const ratios = await page.locator('#look-changes tbody tr td:nth-child(3)').allTextContents();
  expect(ratios.length).toBeGreaterThan(5);
  for (const ratio of ratios) expect(Number(ratio)).toBeGreaterThan(0);
  // A look in between does not stop the training, and another one is taken as it goes on.
  const before = await looked();
  await expect.poll(looked, { timeout: 120_000 }).toBeGreaterThan(before);
  await doing(page, 'running');
  await page.locator('#look-prompt').fill('Once a blue fox named Edda');
  await page.locator('#look-prompt').press('Enter');
  await expect(page.locator('#look-written')).toContainText('Once a blue fox named Edda', { timeout: 60_000 });
  expect((await page.locator('#look-written').textContent()).length).toBeGreaterThan(40);
  // The second head of the second layer, drawn of the sequence and then of what was written.
  const heads = page.locator('#look-heads');
  await expect(heads).toHaveAttribute('data-part', 'layers.0.attention');
  await page.locator('#look-layer').selectOption({ label: 'layer 2, attention' });
  await page.locator('#look-head').selectOption({ label: '2' });
  await expect(heads).toHaveAttribute('data-part', 'layers.1.attention', { timeout: 60_000 });
  await expect(heads).toHaveAttribute('data-head', '1', { timeout: 60_000 });
  await expect(page.locator('#look-matrix')).toHaveAccessibleName('Weights of layer 2, attention, head 2: 32 queries by 32 keys');
  const pixel = (row, column) =>
    page.locator('#look-matrix canvas').evaluate((canvas, [row, column]) => {
      const side = canvas.width / 32;
      const data = canvas.getContext('2d').getImageData(column * side, row * side, side, side).data;
      return [...new Set(Array.from({ length: data.length / 4 }, (_, i) => data.slice(4 * i, 4 * i + 3).join()))];
    }, [row, column]);
  // The first token sees itself alone, in the lightest colour there is; what comes is hatched; two rows differ.
  expect(await pixel(0, 0)).toEqual(['254,232,56']);
  expect((await pixel(3, 20)).length).toBe(2);
  expect(await pixel(31, 4)).not.toEqual(await pixel(0, 0));
  // By keys, in words.
  await page.locator('#look-matrix').focus();
  await page.keyboard.press('ArrowDown');
  await expect(page.locator('#look-cell')).toHaveText(/^Query 0 \S+, key 0 \S+: weight 1\.0$/);
  await page.keyboard.press('ArrowRight');
  await expect(page.locator('#look-cell')).toContainText('outside the pattern');
  await page.locator('#look-matrix').hover({ position: { x: 3, y: 60 } });
  await expect(page.locator('#look-matrix .tip')).toContainText('weight');
  // It follows the training.
  const drawn = () => page.locator('#look-matrix canvas').evaluate((canvas) => canvas.toDataURL());
  const picture = await drawn();
  await expect.poll(drawn, { timeout: 120_000 }).not.toBe(picture);
  await page.locator('#look-written-heads').check();
  await expect(page.locator('#look-matrix')).toHaveAccessibleName(/head 2: 30 queries by 30 keys/, { timeout: 60_000 });
  await page.locator('#look-run').selectOption('1');
  await expect.poll(looked, { timeout: 60_000 }).toBeGreaterThan(0);
  await page.locator('#race-stop').click();
});
