"""A secondary that was written to."""

from ends import commit, have_all, leave, open_primary, open_secondary, open_storage, wait_for

primary = open_primary(open_storage("primary"))
commit(primary)
stray = open_storage("secondary")
commit(stray)
commit(stray, mistake=True)
stray.close()
commit(primary, truth=True)
secondary = open_secondary(open_storage("secondary"))
wait_for(lambda: have_all(primary, secondary))
ours, theirs = ({each.tid for each in end.iterator()} for end in (primary, secondary))
print("transactions of the primary:", len(ours))
print("on the secondary:", len(ours & theirs), "of these and", len(theirs - ours), "of its own")
leave()
