"""Actuators: what makes replicas come and go, one file each, behind `base.Actuator`.

    replicas()                      the instances that run now
    scale(count, leaving, fence)    bring them to `count`

`scale` says what there should be, not what to do, so it may be repeated: after a timeout, a restart or a change of
leader the same call is made again and does no harm. `leaving` names instances that go in any case (drained, or
broken), so a broken one is replaced by asking for the same number. `fence` is the leader's token, which only grows:
whoever keeps it can refuse a leader that does not know yet that it is none any more.

An actuator knows nothing of health, traffic or policies; it is driven by one loop (`control/scaling/`), which bounds
each call in time and tries again. What ends without having been asked to is simply no longer listed.
"""
