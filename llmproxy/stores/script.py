"""What Redis runs: `core.buckets` and `MemoryStore` once more, in Lua. The tests hold each against the other.

Numbers are doubles there, exact up to 2^53; `SIZE_MAX` keeps every product below that. Written for Redis 5 and later.
"""

LIMITS = """\
-- KEYS: the key of this proxy's sequence, then one for each limit, in order.
-- ARGV: the time in ms (0: this server's own), the last moment for taking (0: any), the sequence of what is given
-- (0: nothing is), the life of a lease in ms; then for each request: 0 to take or 1 to give, the number of limits, the
-- lease, when what is given back was taken; and for each of its limits: kind, size, burst, amount.
-- Answers the time, then for each request that takes: the position of the limit in the way (-1: none; -2: too late),
-- the wait in ms, and for each limit what remains and when it is as new.
local MINUTE, DAY, SLACK = 60000, 86400000, 60000
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local last_moment, sequence, ttl = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function div(a, b)
  return (a - a % b) / b
end

local function month_of(ms)
  local days = div(ms, DAY) + 719468
  local era_day = days % 146097
  local year = div(era_day - div(era_day, 1460) + div(era_day, 36524) - div(era_day, 146096), 365)
  local march_month = div(5 * (era_day - (365 * year + div(year, 4) - div(year, 100))) + 2, 153)
  return (div(days, 146097) * 400 + year - 1970) * 12 + march_month + 2
end

local function month_start(month)
  local months = month - 2 + 1970 * 12
  local years, march_month = div(months, 12), months % 12
  local era, year = div(years, 400), years % 400
  local days = div(153 * march_month + 2, 5) + 365 * year + div(year, 4) - div(year, 100)
  return (era * 146097 + days - 719468) * DAY
end

local function period_of(kind, ms)
  if kind == 2 then return month_of(ms) end
  return div(ms, DAY)
end

local function period_end(kind, period)
  if kind == 2 then return month_start(period + 1) end
  return (period + 1) * DAY
end

-- A limit's state as a table: value, rest (of a budget: the period), at (of a bucket).
local function look(key, kind, size, burst)
  if kind == 3 then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
    return {value = redis.call('ZCARD', key)}
  end
  local raw = redis.call('GET', key)
  local value, rest, at
  if raw then
    value, rest, at = string.match(raw, '^(-?%d+):(%d+):(%d+)$')
    value, rest, at = tonumber(value), tonumber(rest), tonumber(at)
  end
  if kind ~= 0 then
    local period = period_of(kind, now)
    if not value or rest ~= period then return {value = 0, rest = period, at = 0} end
    return {value = value, rest = rest, at = 0}
  end
  if not value then return {value = burst, rest = 0, at = now} end
  local time = now
  if now < at then
    if at - now > MINUTE then at = now else time = at end
  end
  local gained = (time - at) * size + rest
  if gained >= (burst - value) * MINUTE then return {value = burst, rest = 0, at = time} end
  return {value = value + div(gained, MINUTE), rest = gained % MINUTE, at = time}
end

local function wait_for(state, size, amount)
  if amount <= state.value then return 0 end
  return div((amount - state.value) * MINUTE - state.rest + size - 1, size)
end

local function reset_of(state, kind, size, burst)
  if kind == 3 then return 0 end
  if kind == 0 then return wait_for(state, size, burst) end
  return period_end(kind, state.rest) - now
end

local function save(key, state, kind, size, burst)
  local life = reset_of(state, kind, size, burst) + SLACK
  redis.call('SET', key, string.format('%.0f:%.0f:%.0f', state.value, state.rest, state.at), 'PX',
    string.format('%.0f', life))
end

local function hold(key, lease)
  redis.call('ZADD', key, string.format('%.0f', now + ttl), lease)
  redis.call('PEXPIRE', key, string.format('%.0f', ttl + SLACK))
end

local function take(k, i, count, lease)
  local states, answer = {}, {-1, 0}
  if last_moment > 0 and now > last_moment then
    answer[1] = -2
    return answer
  end
  for n = 1, count do
    local a = i + (n - 1) * 4
    local key, kind, size = KEYS[k + n - 1], tonumber(ARGV[a]), tonumber(ARGV[a + 1])
    local burst, amount = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
    local state = look(key, kind, size, burst)
    local left, wait = state.value, 0
    if kind ~= 0 then left = size - left end
    if amount > 0 then
      if kind == 0 then
        amount = math.min(amount, burst)
        wait = wait_for(state, size, amount)
      elseif kind == 3 then
        state.held = redis.call('ZSCORE', key, lease)
        if left < 1 and not state.held then wait = 1000 end
      elseif amount > left then
        wait = period_end(kind, state.rest) - now
      end
    end
    if wait > answer[2] then answer[1], answer[2] = n - 1, wait end
    state.key, state.kind, state.size, state.burst, state.amount, state.left = key, kind, size, burst, amount, left
    states[n] = state
  end
  for n = 1, count do
    local state = states[n]
    local kind, amount = state.kind, state.amount
    if answer[1] < 0 and amount > 0 then
      if kind == 3 then
        hold(state.key, lease)
        if not state.held then state.left = state.left - 1 end
      else
        if kind == 0 then state.value = state.value - amount else state.value = state.value + amount end
        state.left = state.left - amount
        save(state.key, state, kind, state.size, state.burst)
      end
    end
    answer[n * 2 + 1] = math.max(0, state.left)
    answer[n * 2 + 2] = reset_of(state, kind, state.size, state.burst)
  end
  return answer
end

local function give(k, i, count, lease, taken_at)
  for n = 1, count do
    local a = i + (n - 1) * 4
    local key, kind, size = KEYS[k + n - 1], tonumber(ARGV[a]), tonumber(ARGV[a + 1])
    local burst, amount = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
    if kind == 3 then
      if amount > 0 then hold(key, lease) elseif amount < 0 then redis.call('ZREM', key, lease) end
    elseif amount ~= 0 then
      local state = look(key, kind, size, burst)
      if kind == 0 then
        state.value = state.value - amount
        if state.value >= burst then state.value, state.rest = burst, 0 end
        save(key, state, kind, size, burst)
      elseif state.rest == period_of(kind, taken_at) then
        state.value = math.max(0, state.value + amount)
        save(key, state, kind, size, burst)
      end
    end
  end
end

local given_before = true
if sequence > 0 then
  given_before = tonumber(redis.call('GET', KEYS[1]) or 0) >= sequence
  if not given_before then redis.call('SET', KEYS[1], ARGV[3], 'PX', 3600000) end
end
local answers, k, i = {now}, 2, 5
while i <= #ARGV do
  local count, lease = tonumber(ARGV[i + 1]), ARGV[i + 2]
  if ARGV[i] == '0' then
    answers[#answers + 1] = take(k, i + 4, count, lease)
  elseif not given_before then
    give(k, i + 4, count, lease, tonumber(ARGV[i + 3]))
  end
  k, i = k + count, i + 4 + count * 4
end
return answers
"""

BEAT = """\
-- KEYS: the proxies that are alive, the number of changes to the overrides. ARGV: this proxy, how many ms one counts.
-- Answers the time in ms, how many are alive, and that number. It writes, so a replica is noticed.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 60000)
return {now, redis.call('ZCARD', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or 0)}
"""
