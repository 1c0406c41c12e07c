-- One write to four reads of the newest message, over a hundred channels.
local text = "the+quick+brown+fox+jumps+over+the+lazy+dog"
local requests, next_request = {}, 0

function init()
  for number = 1, 100 do
    local write = string.format("/write?channel=wrk-%d&message=%s", number, text)
    local read = string.format("/read?channel=wrk-%d&from_id=-1&timeout=0", number)
    table.insert(requests, wrk.format("GET", write))
    for _ = 1, 4 do
      table.insert(requests, wrk.format("GET", read))
    end
  end
end

function request()
  next_request = next_request % #requests + 1
  return requests[next_request]
end
