"""Small clients that ask and stop what is alive. They have verbs and no opinions: who may be asked is the caller's."""
