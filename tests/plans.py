"""What tests of plans have in common."""

ONE_TENANT = """\
name: s
timing: {warmup_s: 1, window_s: 5, drain_s: 9}
tenants:
  - name: a
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 8}}
    output: {kind: fixed, tokens: 8}
"""
