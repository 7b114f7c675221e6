"""`tune`: tries settings in trials, chooses by validation images, and says how good the choice really is.

May import everything below `cli`. The module `space` says what is searched, `halving` which training comes next,
`study` what the folder of a study holds, `trials` how one training is done, `tune` is the verb.
"""
