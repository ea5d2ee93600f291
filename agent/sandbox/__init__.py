"""What a tool may do, and how the operating system is made to hold it to that.

Policy and plan are pure: they decide on facts given as data. `run` and the commands perform the plan. This room imports
nothing of ours and little of the standard library, since a helper process pays for each import with each command.
"""
