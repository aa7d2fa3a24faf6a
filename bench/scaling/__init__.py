"""Autoscaling beside other systems' rules, whose options are searched on the very traffic they are judged by.

The rules live in `llmproxy/sim/scaling/rivals`, where `llmproxy simulate --scale` finds them too; see README.md.
"""
