-- The id that the broker gave the topic: readers hold it beside what they have seen, since offsets of a topic that was
-- made anew count other records.
alter table serving.positions add column topic_id text;
update serving.positions p set topic_id = r.topic_ids ->> p.topic from replayer.runs r where r.version = p.version;
