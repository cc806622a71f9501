-- A front that has drained names the proposal: its routes are found without a look at every job that the front serves.
create index routes_by_proposal on switcher.routes (proposal);
