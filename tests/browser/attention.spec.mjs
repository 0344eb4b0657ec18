// The place Attention: plates, cursor, controls, permalink.
import { test, expect, pixels } from './lab.mjs';

/** Waits until the plate stands as asked for, and returns how many pictures it has had. */
async function drawn(page, plate = 0) {
  const figure = page.locator(`#plate-${plate}`);
  await expect(figure).toHaveAttribute('data-drawn', 'exact', { timeout: 30_000 });
  return Number(await figure.getAttribute('data-draws'));
}

const near = (a, b, by = 6) => a.slice(0, 3).every((value, channel) => Math.abs(value - b[channel]) <= by);

test('a mask is drawn cell by cell as its rule says', async ({ lab }) => {
  const page = await lab.open('?v=1&view=mask&variant=sliding_window&sliding_window.window=16&n=64&theme=light');
  await drawn(page);
  const image = await pixels(page.locator('#plate-0 canvas'));
  const at = (row, col) => image.at((col + 0.5) / 64, (row + 0.5) / 64);
  const may = at(32, 32);
  const not = at(60, 2);
  expect(near(may, not, 40)).toBe(false);
  for (let row = 1; row < 64; row += 7) {
    for (let col = 2; col < 64; col += 5) {
      // Forbidden cells are hatched, so that they have one of two colours, neither near that of an allowed cell.
      expect(near(at(row, col), may, 40), `row ${row}, column ${col}`).toBe(Math.abs(row - col) <= 8);
    }
  }
});

test('the colour of a weight is what the legend says of the number read out', async ({ lab }) => {
  const page = await lab.open('?v=1&view=weights&variant=full&n=16&theme=light');
  await drawn(page);
  const canvas = page.locator('#plate-0 canvas');
  const image = await pixels(canvas);
  const box = await canvas.boundingBox();
  const gradient = await page.locator('#plate-0 .legend .bar').evaluate((bar) => getComputedStyle(bar).backgroundImage);
  const stops = [...gradient.matchAll(/rgb\((\d+), (\d+), (\d+)\)/g)].map((match) => match.slice(1).map(Number));
  const top = Number(await page.locator('#plate-0 .legend .number').last().textContent());
  expect(stops.length).toBe(9);
  for (const [row, col] of [[3, 3], [9, 2], [12, 12]]) {
    await page.mouse.move(box.x + ((col + 0.5) / 16) * box.width, box.y + ((row + 0.5) / 16) * box.height);
    await expect(page.locator('#readout .where')).toContainText(`(${row})`);
    await expect(page.locator('#cell-0')).toContainText('weight');
    const weight = Number(/weight ([\d.e-]+)/.exec(await page.locator('#cell-0').textContent())[1]);
    const place = Math.min(weight / top, 1) * 8;
    const [low, high] = [stops[Math.min(Math.floor(place), 7)], stops[Math.min(Math.floor(place), 7) + 1]];
    const want = low.map((value, channel) => value + (high[channel] - value) * (place - Math.min(Math.floor(place), 7)));
    // The colour of the cell's own corner: its middle is under the cursor's mark.
    expect(near(image.at((col + 0.3) / 16, (row + 0.3) / 16), want, 8), `(${row}, ${col}): weight ${weight}`).toBe(true);
  }
});

test('the slider answers at once and the plate follows', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full&n=256');
  const before = await drawn(page);
  await page.locator('#length').focus();
  await page.keyboard.press('ArrowRight');
  await expect(page.locator('#state-line')).toContainText('304 tokens');
  await expect.poll(async () => Number(await page.locator('#plate-0').getAttribute('data-draws'))).toBeGreaterThan(before);
  await expect(page).toHaveURL(/n=304/);
});

test('a permalink comes back as it was', async ({ lab }) => {
  const query = 'v=1&view=scores&variant=sliding_window,linear&sliding_window.window=32&n=128&heads=2&dim=32&causal=1&head=1&seed=7&theme=dark';
  const page = await lab.open(`?${query}`);
  await drawn(page);
  await expect(page.locator('#banner-link')).toHaveCount(0);
  await expect(page.locator('#state-line')).toContainText('window 32');
  await page.locator('#causal').uncheck();
  await expect(page).not.toHaveURL(/causal/);
  const { searchParams } = new URL(page.url());
  expect([searchParams.get('view'), searchParams.get('variant'), searchParams.get('n')]).toEqual(['scores', 'sliding_window,linear', '128']);
  await page.reload();
  await expect(page.locator('#state-line')).toContainText('bidirectional');
  await expect(page.locator('#state-line')).toContainText('window 32');
  await expect(page.locator('#seed')).toHaveValue('7');
  expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe('dark');
});

test('what a link asks for and cannot have is named, and the rest applies', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full&n=banana&colour=red&causal=1');
  await expect(page.locator('#banner-link')).toContainText('banana');
  await expect(page.locator('#banner-link')).toContainText('colour');
  await expect(page.locator('#state-line')).toContainText('causal');
});

test('the cursor goes by keyboard, is shared by both plates, and is spoken', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full,sliding_window&n=64');
  await drawn(page, 0);
  await drawn(page, 1);
  await page.locator('#plate-0 .frame').focus();
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('Enter');
  await expect(page.locator('#readout .where')).toContainText('(2)');
  await expect(page.locator('#plate-1 .cell')).toHaveCount(1);
  await expect(page.locator('#readout [aria-live]')).toContainText('key 2');
  await expect(page.locator('#cell-1')).not.toBeEmpty();
  await page.keyboard.press('+');
  await expect(page.locator('#plate-0 .frame')).toHaveAttribute('data-zoomed', '');
  await page.keyboard.press('0');
  await page.keyboard.press('Escape');
  await expect(page.locator('#plate-0 .cell')).toHaveCount(0);
});

test("the visitor's own words stand on the axes", async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full&n=16');
  await page.locator('#text').fill('Ünïcode naïveté 🦀 one two three four five six seven eight nine ten eleven twelve thirteen');
  await drawn(page);
  await expect(page.locator('#plate-0 .axis.rows')).toContainText('Ünïcode');
  await expect(page.locator('#plate-0 .axis.rows')).toContainText('🦀');
  await expect(page.locator('#text-notice')).toContainText('16 tokens');
});

test('every view of every variant is drawn', async ({ lab }) => {
  test.setTimeout(300_000);
  const page = await lab.open('?v=1&variant=linear&n=64&view=mask');
  let draws = await drawn(page);
  for (const id of await page.locator('.gallery .pick').evaluateAll((all) => all.map((one) => one.id))) {
    await page.locator(`#${id}`).click();
    if (['pick-rnn', 'pick-lstm', 'pick-gru'].includes(id)) {
      await expect(page.locator('#plate-0 .wait')).toContainText('no attention matrix');
      continue;
    }
    for (const view of ['mask', 'blocks', 'scores', 'weights', 'difference']) {
      await page.locator(`input[name=view][value=${view}]`).check();
      await expect.poll(async () => Number(await page.locator('#plate-0').getAttribute('data-draws')), { message: `${id} ${view}` }).toBeGreaterThan(draws);
      draws = await drawn(page);
    }
  }
  await expect(page.locator('#banner-failed')).toHaveCount(0);
});

test('the page speaks another language, and keeps its state', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=sliding_window&n=128&causal=1');
  await page.locator('#language').click();
  await expect(page.locator('#state-line')).toContainText('128 Token');
  await expect(page.locator('#state-line')).toContainText('kausal');
  expect(await page.evaluate(() => document.documentElement.lang)).toBe('de');
});

test('layers and heads are different matrices', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full&n=32');
  await drawn(page);
  await page.locator('#plate-0 .frame').focus();
  await page.keyboard.press('Home');
  const cell = page.locator('#cell-0');
  await expect(cell).toContainText('weight');
  const first = await cell.textContent();
  await page.locator('#layer-picker select').selectOption({ value: '1' });
  await expect(cell).not.toHaveText(first);
  const second = await cell.textContent();
  await page.locator('#head-picker select').selectOption({ value: '2' });
  await expect(cell).not.toHaveText(second);
  await expect(page).toHaveURL(/layer=1/);
  await expect(page).toHaveURL(/head=2/);
});

for (const [n, scale] of [[48, 'sqrt'], [512, 'log']]) test(`many small weights are told, and one click shows them at ${n} tokens`, async ({ lab }) => {
  const page = await lab.open(`?v=1&view=weights&variant=linear&n=${n}&theme=light`);
  await drawn(page);
  const hint = page.locator('#plate-0 .hint');
  await expect(hint).toContainText('0.0');
  const dark = async () => (await pixels(page.locator('#plate-0 canvas'))).at(0.4, 0.4).slice(0, 3).reduce((a, b) => a + b);
  // The trained model may still be on its way, and then the picture is drawn once more.
  await expect(page.locator('#plate-0 .chip')).toHaveText('trained');
  await expect.poll(dark).toBeLessThan(600);
  const before = await dark();
  await hint.getByRole('button').click();
  await expect(hint).toHaveCount(0);
  await expect(page).toHaveURL(new RegExp(`scale=${scale}`));
  await expect.poll(dark).toBeGreaterThan(before + 20);
  // The domain stays: the colour bar still ends at 1.
  await expect(page.locator('#plate-0 .legend .number').last()).toHaveText('1.00');
  // Where a weight is large, nothing is said.
  await lab.open('?v=1&view=weights&variant=full&n=16');
  await drawn(page);
  await expect(page.locator('#plate-0 .hint')).toHaveCount(0);
});

test('the yardstick stands first in the gallery', async ({ lab }) => {
  const page = await lab.open();
  await expect(page.locator('#pick-full')).toBeVisible();
  const ids = await page.locator('.gallery .pick').evaluateAll((all) => all.map((one) => one.id));
  expect(ids.slice(0, 2)).toEqual(['pick-full', 'pick-full_naive']);
  await expect(page.locator('#pick-full')).toContainText('yardstick');
});

test('the weights are those of a trained model, whose loss another attention changes', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=full,sliding_window&n=48&causal=1');
  await expect(page.locator('#plate-0 .chip')).toHaveText('trained');
  await expect(page.locator('#weights-said')).toContainText('A decoder of 3 layers, 4 heads');
  await expect(page.locator('#layer-picker option')).toHaveCount(3);
  await expect(page.locator('#heads')).toBeHidden();
  // What is measured meanwhile has the cursor before it again and again, and is told all the same.
  const box = await page.locator('#plate-0 canvas').boundingBox();
  for (let i = 0; i < 40; i++) await page.mouse.move(box.x + (0.1 + 0.02 * i) * box.width, box.y + 0.9 * box.height);
  const held = page.locator('#swap tbody tr td').first();
  await expect(held).toHaveText(/^0\.6\d* → [01]\.\d+$/);
  await expect(page.locator('#numbers tr', { hasText: 'Time of one forward pass' }).locator('td')).toContainText([/\d [mµ]?s/, /\d [mµ]?s/, 'measured']);
  const [before, after] = (await held.textContent()).split(' → ').map(Number);
  expect(after).toBeGreaterThan(before);
  await page.fill('#text', 'Once a red fox named Zelda lived in the castle.');
  await expect(page.locator('#weights-said')).toContainText('Zelda → ');
  await page.selectOption('#weights', 'drawn');
  await expect(page.locator('#plate-0 .chip')).toHaveText('untrained');
  await expect(page.locator('#swap')).toBeHidden();
  await expect(page.locator('#heads')).toBeVisible();
  await expect(page).toHaveURL(/weights=drawn/);
});

test('a missing model is said, and the seed serves in its place', async ({ lab, page }) => {
  lab.expectErrors(/404/);
  await page.route('**/weights/*', (route) => route.fulfill({ status: 404 }));
  await lab.open('?v=1&variant=full&n=32');
  await drawn(page);
  await expect(page.locator('#weights-said')).toContainText('could not be had');
  await expect(page.locator('#plate-0 .chip')).toHaveText('untrained');
});

test('the trained model is fine-tuned with another attention', async ({ lab }) => {
  const page = await lab.open('?v=1&variant=sliding_window&n=48&causal=1');
  const held = page.locator('#swap tbody tr td').first();
  await expect(held).toHaveText(/→ [01]\./);
  const [, swapped] = (await held.textContent()).split(' → ').map(Number);
  await page.locator('.fine-tune').click();
  await expect(page.locator('#race-controls')).toHaveAttribute('data-doing', 'running', { timeout: 30_000 });
  const row = page.locator('#runs tbody tr').first();
  await expect(row).toContainText('Sliding window, fine-tuned');
  // The column of the held-out loss.
  const loss = row.locator('td').nth(3);
  await expect(loss).toHaveText(/\d/, { timeout: 60_000 });
  expect(Number(await loss.textContent())).toBeLessThan(swapped - 0.1);
  await page.locator('#race-stop').click();
});

test('the page in German has no English sentence of its own left', async ({ lab }) => {
  const page = await lab.open('?v=1&lang=de&variant=sliding_window&n=64');
  await drawn(page);
  await expect(page.locator('#banner-adapter')).toContainText('Prozessor');
  await expect(page.locator('#numbers')).toContainText(/\d,\d/);
  await expect(page.locator('#numbers')).not.toContainText(/\d\.\d/);
  await expect(page.locator('#plate-0 .chip')).toHaveAttribute('title', /mit voller Attention trainierten Modell/);
});

test.describe('on a touch screen', () => {
  test.use({ hasTouch: true });

  test('two fingers zoom, one finger then pans', async ({ lab, page, context }) => {
    await lab.open('?v=1&variant=sliding_window&view=mask&n=1024');
    await drawn(page);
    const frame = page.locator('#plate-0 .frame');
    const box = await frame.boundingBox();
    const touch = await context.newCDPSession(page);
    const at = (...points) => points.map(([x, y], id) => ({ x: box.x + x * box.width, y: box.y + y * box.height, id }));
    const send = (type, ...points) => touch.send('Input.dispatchTouchEvent', { type, touchPoints: at(...points) });
    const first = () => page.locator('#plate-0 .axis.rows span').first().textContent();
    const drag = async (from, to, steps = 8) => {
      await send('touchStart', ...from(0));
      for (let step = 1; step <= steps; step++) await send('touchMove', ...to(step / steps));
      await send('touchEnd');
    };
    // From a tenth of the frame apart to eight tenths, around the middle: eight times as close.
    const apart = (t) => [[0.5 - 0.05 - 0.35 * t, 0.5], [0.5 + 0.05 + 0.35 * t, 0.5]];
    await drag(apart, apart);
    await expect(frame).toHaveAttribute('data-zoomed', '');
    const zoomed = Number((await first()).replace(/\D/g, ''));
    expect(zoomed).toBeGreaterThan(300);
    await drawn(page);
    const down = (t) => [[0.5, 0.2 + 0.6 * t]];
    await drag(down, down);
    await expect.poll(async () => Number((await first()).replace(/\D/g, ''))).toBeLessThan(zoomed);
    // No finger has locked a cell on the way.
    await expect(frame).not.toHaveAttribute('data-locked', '');
    // Together again: all of it.
    const together = (t) => apart(1 - t);
    await drag(together, together);
    await expect(frame).not.toHaveAttribute('data-zoomed', '');
  });
});
