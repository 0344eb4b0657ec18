// What a method decided about the text, beneath its plate.
import { test, expect } from './lab.mjs';

/** What a strip's read-out says of one token, as numbers, a row for each. */
async function numbers(part, token) {
  const text = await part.locator('.said').textContent();
  return (new RegExp(`\\(${token}\\): \\D*([\\d· ]+)`).exec(text)?.[1].match(/\d+/g) ?? []).map(Number);
}

test('the buckets of Reformer and their order stand beneath the plate and follow the text', async ({ lab }) => {
  const page = await lab.open('?v=1&view=weights&variant=reformer&reformer.rounds=2&n=32&theme=light');
  const buckets = page.locator('#decided-0 [data-part=buckets]');
  const order = page.locator('#decided-0 [data-part=order]');
  await expect(buckets.locator('canvas')).toBeVisible();
  await expect(order.locator('canvas')).toBeVisible();

  // The order is that of the buckets: walking along the tokens, places rise with buckets, and with positions within one.
  await page.locator('#plate-0 .frame').focus();
  await page.keyboard.press('Home');
  for (let row = 0; row < 32; row++) await page.keyboard.press('ArrowUp');
  await page.locator('#decided-0').focus();
  const seen = [];
  for (let token = 0; token < 32; token++) {
    await expect(buckets.locator('.said')).toContainText(`(${token})`);
    const [bucket, place] = [await numbers(buckets, token), await numbers(order, token)];
    expect(bucket.length, `token ${token}`).toBe(2);
    seen.push({ token, bucket, place });
    await page.keyboard.press('ArrowRight');
  }
  for (let round = 0; round < 2; round++) {
    const sorted = [...seen].sort((a, b) => a.bucket[round] - b.bucket[round] || a.token - b.token);
    expect(sorted.map(({ place }) => place[round])).toEqual(seen.map((_, place) => place));
  }

  // Another text falls into other buckets.
  const pixels = () => buckets.locator('canvas').evaluate((canvas) => canvas.toDataURL());
  const before = await pixels();
  await page.locator('#text').fill('one fish two fish red fish blue fish this one has a little star this one has a little car');
  await expect.poll(pixels).not.toBe(before);

  // Full attention decides nothing.
  await page.locator('.gallery .pick').first().click();
  await expect(page.locator('#decided-0')).toHaveCount(0);
});

test('a strip and the plate share one cursor', async ({ lab }) => {
  const page = await lab.open('?v=1&view=weights&variant=clustered&n=32&theme=dark');
  const strip = page.locator('#decided-0 [data-part=groups] .strip');
  await strip.scrollIntoViewIfNeeded();
  const box = await strip.boundingBox();
  await page.mouse.move(box.x + (20.5 / 32) * box.width, box.y + box.height / 2);
  await expect(page.locator('#readout .where')).toContainText('(20)');
  await expect(page.locator('#decided-0 [data-part=groups] .said')).toContainText(/\(20\): group \d+/);
  const mark = await strip.locator('rect.cell').boundingBox();
  expect(mark.x).toBeLessThan(box.x + (20.5 / 32) * box.width);
  expect(mark.x + mark.width).toBeGreaterThan(box.x + (20.5 / 32) * box.width);
});
