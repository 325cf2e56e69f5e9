// Rates and quantiles from counters that only grow. A batcher that was restarted counts anew, and one that was silent for
// a while isn't counted for that while.

const KEPT_SECONDS = 70;

/** What one model's batchers counted lately. */
export class History {
  #samples = [];

  /** @param at seconds of this page's clock  @param batchers part to its figures, as /v1/status has them */
  add(at, batchers) {
    this.#samples.push({ at, batchers });
    while (this.#samples[0].at < at - KEPT_SECONDS) this.#samples.shift();
  }

  /** The increase over the last `seconds`, or over what there is of them; null before there are two samples. */
  over(seconds) {
    const newest = this.#samples.at(-1);
    const oldest = this.#samples.find((sample) => sample.at >= newest.at - seconds);
    return oldest === newest || !oldest ? null : increase(oldest, newest);
  }

  /** Answers a second between each two samples, oldest first. */
  trend() {
    return this.#samples.slice(1).map((sample, place) => {
      const { answered, seconds } = increase(this.#samples[place], sample);
      return answered / seconds;
    });
  }
}

/** What was counted from `older` to `newer`, over the batchers that are in both. */
export function increase(older, newer) {
  const sum = { seconds: newer.at - older.at, answered: 0, batched: 0, batches: 0, latency: [] };
  for (const [part, now] of Object.entries(newer.batchers)) {
    const before = older.batchers[part];
    if (!before) continue;
    sum.answered += grown(before.answered.OK, now.answered.OK);
    sum.batched += grown(before.batched, now.batched);
    sum.batches += grown(before.batches, now.batches);
    now.latency.forEach(([limit, total], place) => {
      const earlier = sum.latency[place]?.[1] ?? 0;
      sum.latency[place] = [limit, earlier + grown(before.latency[place]?.[1], total)];
    });
  }
  return sum;
}

const grown = (before = 0, now = 0) => (now >= before ? now - before : now);

/**
 * A quantile of a histogram, linear within its bucket, as Prometheus' histogram_quantile; null where nothing was counted.
 *
 * @param buckets [limit in seconds, cumulative count], the last one's limit -1 for no limit
 */
export function quantile(buckets, share) {
  const all = buckets.at(-1)?.[1] ?? 0;
  if (all === 0) return null;
  const rank = share * all;
  let [below, from] = [0, 0];
  for (const [limit, total] of buckets) {
    if (total >= rank) return limit < 0 ? from : from + ((limit - from) * (rank - below)) / (total - below);
    [below, from] = [total, limit];
  }
  return from;
}
