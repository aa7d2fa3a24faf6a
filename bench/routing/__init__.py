"""How good the routing is: real traffic replayed in virtual time, beside other systems' rules.

What it decides: nothing in production; it shows whether `expected_cost` is worth recommending. The fleet is
`llmproxy.sim`'s, so our policies are the production objects; the others (`rivals/`) have the same interface.

- `experiments`: what is compared, under which conditions, at which load;
- `replay`: one replay, and the search for the highest load; a task depends on nothing but itself;
- `targets`: ratios, taken within a seed, and what was aimed at;
- `report`: tables.

Seeds differ in the arrivals' jitter and in how policies break ties. All policies meet the same arrivals at the same
seed and load, so a ratio is taken seed by seed; tables show its mean, and the smallest and largest.
"""
