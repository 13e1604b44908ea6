// What k6 runs: requests at a rate that does not wait for answers, as those of many users do not. Told by the
// environment: ROUTES (one after another), STAGES (rate:seconds,...), QUERIES (a file), DEADLINE_MS, CONNECTIONS.
// One line of JSON comes out: statuses, latencies in ms, answers after the deadline, requests that could not be sent.
import http from 'k6/http';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';
import { SharedArray } from 'k6/data';

const queries = new SharedArray('queries', () => JSON.parse(open(__ENV.QUERIES)));
const routes = __ENV.ROUTES.split(',');
const stages = __ENV.STAGES.split(',').map((stage) => stage.split(':').map(Number));
const statuses = {};
for (const status of ['0', '200', '429', '503', '504', 'other']) statuses[status] = new Counter(`status_${status}`);
const late = new Counter('late');

export const options = {
  discardResponseBodies: true,
  scenarios: {
    load: {
      executor: 'ramping-arrival-rate',
      startRate: stages[0][0],
      timeUnit: '1s',
      // A stage of no time sets the rate, the one after it keeps it.
      stages: stages.flatMap(([target, seconds]) => [{ target, duration: '0s' }, { target, duration: `${seconds}s` }]),
      preAllocatedVUs: +__ENV.CONNECTIONS,
      maxVUs: +__ENV.CONNECTIONS,
      gracefulStop: '30s',
    },
  },
  summaryTrendStats: ['med', 'p(99)', 'max', 'count'],
};

export default function () {
  const number = exec.scenario.iterationInTest;
  const body = JSON.stringify({ input: queries[number % queries.length], model: '' });
  const answer = http.post(routes[number % routes.length], body, {
    headers: { 'Content-Type': 'application/json' },
    timeout: '30s',
  });
  (statuses[answer.status] || statuses.other).add(1);
  if (answer.timings.duration > +__ENV.DEADLINE_MS) late.add(1);
}

export function handleSummary({ metrics }) {
  const count = (name) => (metrics[name] ? metrics[name].values.count : 0);
  const { med, 'p(99)': p99, max } = metrics.http_req_duration.values;
  const told = { statuses: {}, ms: { p50: med, p99, max }, late: count('late'), unsent: count('dropped_iterations') };
  for (const status of Object.keys(statuses)) told.statuses[status] = count(`status_${status}`);
  return { stdout: `${JSON.stringify(told)}\n` };
}
