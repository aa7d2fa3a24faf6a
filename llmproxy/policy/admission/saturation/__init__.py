"""Whether a backend may be given more now: four separate questions, each of which can say no.

`backlog`: are the prompts that wait there to be computed less than so many seconds of work? `share`: has it been
computing prompts for so much of its time lately that those who decode there get their tokens too slowly? `adaptive`:
are there fewer requests than have been seen to do it good? And `max_concurrency`, which `Backend.has_room` answers.
"""
