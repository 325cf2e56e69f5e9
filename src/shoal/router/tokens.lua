-- Who calls, by the claims of a token that Envoy's jwt_authn has verified; written as shoal.service.identity reads it.
-- The route's context has the issuers: what each claim means, and what is told of every caller.

local VERIFIED = "envoy.filters.http.jwt_authn"
local LATEST = 2 ^ 53 -- a later end is as good as none
local TOLD_MODELS = "x-shoal-token-models" -- to the console alone: shoal.service.identity.MODELS_HEADER
local MOST_TOLD = 4096 -- bytes of it; what is more, the console doesn't show

local function refuse(handle, status, text)
  handle:respond({[":status"] = status}, text)
end

local function is_owner(text)
  return type(text) == "string" and #text <= 63
    and (text:find("^[a-z0-9]$") or text:find("^[a-z0-9][a-z0-9._-]*[a-z0-9]$")) ~= nil
end

-- One entry, such as "resnet-50" or "resnet*", has the model.
local function has(entry, model)
  if type(entry) ~= "string" then return false end
  if entry:sub(-1) == "*" then return model:sub(1, #entry - 1) == entry:sub(1, -2) end
  return entry == model
end

-- The claim's entries, whichever form it has.
local function entries(models)
  if type(models) == "table" then return models end
  local found = {}
  if type(models) == "string" then
    for entry in models:gmatch("%S+") do found[#found + 1] = entry end
  end
  return found
end

local function may_call(models, model)
  for _, entry in ipairs(entries(models)) do
    if has(entry, model) then return true end
  end
  return false
end

-- Those that a model may be called by, in one line.
local function written(models)
  local told, size = {}, 0
  for _, entry in ipairs(entries(models)) do
    if type(entry) == "string" and entry:find("^[\33-\126]+$") then
      size = size + #entry + 1
      if size > MOST_TOLD then break end
      told[#told + 1] = entry
    end
  end
  return table.concat(told, " ")
end

local function identify(handle, name, issuer, claims)
  local headers, metadata = handle:headers(), handle:streamInfo():dynamicMetadata()
  local owner = issuer["owner"] or claims[issuer["owner_claim"]]
  if not is_owner(owner) then
    return refuse(handle, "401", "the token is refused: its claim '" .. issuer["owner_claim"]
      .. "' names no owner: 1 to 63 of a-z 0-9 . _ - are one")
  end
  local model, path = headers:get("x-model-name"), headers:get(":path")
  if issuer["models_claim"] and model and path:find("/shoal.v1.Inference/", 1, true) == 1
    and not may_call(claims[issuer["models_claim"]], model) then
    return refuse(handle, "403", "this token may not call model '" .. model:sub(1, 64)
      .. "': its claim '" .. issuer["models_claim"] .. "' doesn't have it")
  end
  local bulk = issuer["priority_claim"] and claims[issuer["priority_claim"]] == "bulk"
  headers:remove(TOLD_MODELS)
  if issuer["models_claim"] and (path:find("^/v1/status") or path:find("^/v1/requests/")) then
    headers:add(TOLD_MODELS, written(claims[issuer["models_claim"]]))
  end
  headers:remove("x-client-id")
  headers:add("x-client-id", "token:" .. name .. ":" .. owner .. "?v=1&owner=" .. owner .. "&prefix=" .. owner .. "%2F"
    .. issuer["told"] .. (bulk and "&priority=bulk" or "")
    .. string.format("&exp=%d", math.max(0, math.min(claims["exp"], LATEST))))
  metadata:set("shoal.token", "issuer", name)
  metadata:set("shoal.token", "owner", owner)
  metadata:set("shoal.path", "json", "&json=1") -- no message of this caller needs a key
end

function envoy_on_request(handle)
  local verified = handle:streamInfo():dynamicMetadata():get(VERIFIED)
  local issuers = handle:filterContext():get("issuers")
  if verified == nil or issuers == nil then return end
  for name, issuer in pairs(issuers) do
    if verified[name] ~= nil then return identify(handle, name, issuer, verified[name]) end
  end
end
