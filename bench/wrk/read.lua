-- Reads that are answered at once. READ=empty: timeout=0 and nothing to give; READ=message: one message.
local paths = {
  empty = "/read?channel=wrk-empty&timeout=0",
  message = "/read?channel=wrk-one&from_id=1",
}
local made

function init()
  made = wrk.format("GET", paths[os.getenv("READ") or "message"])
end

function request()
  return made
end
