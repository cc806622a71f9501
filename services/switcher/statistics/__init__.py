"""Statistics of an experiment: sequential tests that may be looked at all the time, and weights that learn. Pure.

Every test is an *e-process*: a number that starts at 1 and, while its null hypothesis holds, is expected to stay at 1
at whatever moment somebody looks. So it passes 1/alpha with a probability of at most alpha in the whole life of the
experiment, however often it is computed, and products over independent strata and means over alternatives are again
e-processes. All of them are functions of counts, in any order of arrival: a late or repeated computation, by another
replica or by an audit, gives the same number.

    srm        are the units spread over the arms as designed?
    harm       does the candidate err more often than the active version? (abort)
    promotion  is the candidate no worse than a margin allows? (promote)
    bandit     which weights would a Thompson sampler give?
    paired     does a shadowed candidate differ more often than the active version from itself?
    decision   all of them put together: a verdict on each candidate, with its sentence

A *stratum* is an epoch of the route, within which the designed shares did not change. Pooling over changing shares
would mistake a change of traffic for an effect of the code.
"""
