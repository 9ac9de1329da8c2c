// What the proxy says of itself, read again and again, and the last minutes of it for the charts.

import * as api from "./api.js";
import { Interval, parse } from "./metrics.js";

const KEPT = 150;

class Readings {
  constructor() {
    this.metrics = null;
    this.readAt = 0;
    this.uptime = null;
    this.history = [];
  }

  async read(withMetrics) {
    const [status, pools, text] = await Promise.all([
      api.get("/api/v1/status"),
      api.get("/api/v1/pools?limit=1000"),
      withMetrics ? api.request("/metrics").then((response) => response.text()) : null,
    ]);
    const restarted = this.started !== undefined && status.started !== undefined && status.started !== this.started;
    this.started = status.started;
    let interval = null;
    if (text !== null) {
      const now = performance.now() / 1000;
      const metrics = parse(text);
      if (this.metrics !== null && now > this.readAt) interval = new Interval(this.metrics, metrics, now - this.readAt);
      [this.metrics, this.readAt] = [metrics, now];
      if (interval !== null) this.remember(interval);
    }
    return { status, pools: pools.items, metrics: this.metrics, interval, history: this.history, restarted };
  }

  remember(interval) {
    this.history.push({
      requests: interval.rate("homing_requests_total"),
      errors: interval.rate("homing_requests_total", { code: /^5/ }),
      moves: interval.rate("homing_session_moves_total"),
      stickiness: stickiness(interval),
    });
    if (this.history.length > KEPT) this.history.shift();
  }
}

// The share of requests with a session that went to its server; null without such requests.
export function stickiness(interval) {
  const kept = interval.rate("homing_session_outcomes_total", { outcome: "kept" });
  const elsewhere = interval.rate("homing_session_outcomes_total", { outcome: ["moved", "borrowed", "refused"] });
  return kept + elsewhere > 0 ? kept / (kept + elsewhere) : null;
}

export const readings = new Readings();
