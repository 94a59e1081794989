"""How good a policy is: roll-outs and reports."""
