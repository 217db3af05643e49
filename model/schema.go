package model

import "encoding/json"

type object = map[string]any

// Schema returns the JSON Schema (draft 2020-12) of the policy language, made
// from the tables that the parser reads with.
func Schema() []byte {
	s := objectSchema(policyKeys, "apiVersion")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "sockns policy"
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return append(data, '\n')
}

func objectSchema(keys []key, required ...string) object {
	properties := object{}
	for _, k := range keys {
		p := k.form.schema()
		p["description"] = k.doc
		properties[k.name] = p
	}
	s := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func oneOrList(item object) object {
	return object{"oneOf": []any{item, object{"type": "array", "items": item, "minItems": 1}}}
}

func listOf(item object) object { return object{"type": "array", "items": item} }

func named(value object) object {
	return object{
		"type":                 "object",
		"propertyNames":        object{"pattern": namePattern, "maxLength": maxNameLength, "not": object{"enum": reserved}},
		"additionalProperties": value,
	}
}

func enum[T ~string](words ...T) object {
	list := make([]any, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return object{"enum": list}
}

func errnos(h Hook) object { return enum(HookErrors[h]...) }

func outcomeSchema(h Hook) object {
	full := objectSchema(outcomeKeys)
	full["properties"].(object)["error"] = errnos(h)
	return object{"oneOf": []any{enum(Allow, Deny), full}}
}

func ruleSchema(h Hook) object {
	s := objectSchema(hookKeys[h])
	e := errnos(h)
	e["description"] = s["properties"].(object)["error"].(object)["description"]
	s["properties"].(object)["error"] = e
	s["dependentRequired"] = object{"error": []any{"action"}}
	return listOf(s)
}

// schema returns the schema of values of a form.
func (f form) schema() object {
	text := object{"type": "string", "minLength": 1}
	switch f {
	case formBool:
		return object{"type": "boolean"}
	case formAPIVersion:
		return enum(APIVersion)
	case formDuration:
		return object{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`}
	case formPath:
		return object{"type": "string", "pattern": "^/."}
	case formPattern:
		return object{"type": "string", "pattern": `^/.*\*`}
	case formMode:
		return enum(Enforce, Audit)
	case formAction:
		return enum(Allow, Deny)
	case formErrno:
		return enum(EACCES, EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EPERM, ETIMEDOUT)
	case formProtocols:
		return oneOrList(enum(Protocols[:]...))
	case formPorts:
		return oneOrList(object{"oneOf": []any{
			object{"type": "integer", "minimum": 1, "maximum": 65535},
			object{"type": "string", "pattern": `^[0-9]+( *- *[0-9]+)?$`},
		}})
	case formPeers, formLocals:
		return oneOrList(text)
	case formAddresses:
		return oneOrList(text)
	case formMembers:
		one := objectSchema(memberKeys)
		one["minProperties"], one["maxProperties"] = 1, 1
		m := listOf(one)
		m["minItems"] = 1
		return m
	case formBindRules:
		return ruleSchema(Bind)
	case formConnectRules:
		return ruleSchema(Connect)
	case formAcceptRules:
		return ruleSchema(Accept)
	case formDefaults:
		return objectSchema(defaultsKeys)
	case formBindDefault:
		return outcomeSchema(Bind)
	case formConnectDefault:
		return outcomeSchema(Connect)
	case formAcceptDefault:
		return outcomeSchema(Accept)
	case formDevices:
		d := objectSchema(deviceKeys)
		d["maxProperties"] = 1
		s := named(d)
		s["properties"] = object{HostDevice: object{"type": []any{"object", "null"}, "maxProperties": 0}}
		return s
	case formGroups:
		return named(oneOrList(text))
	case formNamespaces:
		n := objectSchema(namespaceKeys)
		n["oneOf"] = []any{object{"required": []any{"members"}}, object{"required": []any{"each"}}}
		return named(n)
	case formEnforcement:
		return objectSchema(enforcementKeys)
	case formSyscalls:
		return enum(SyscallsAuto, SyscallsRequired)
	case formTests:
		return listOf(object{"type": "object", "additionalProperties": text})
	default:
		return object{"type": "string", "minLength": 1}
	}
}
