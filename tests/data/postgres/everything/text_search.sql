-- Text search: parsers, templates, dictionaries, configurations.

CREATE TEXT SEARCH PARSER app.my_parser (
    START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline
);
CREATE TEXT SEARCH TEMPLATE app.my_template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH TEMPLATE app."Bare" (LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY app.plain (TEMPLATE = app.my_template, stopwords = 'english', accept = false);
CREATE TEXT SEARCH DICTIONARY app."Snow ball" (TEMPLATE = snowball, language = 'german');
CREATE TEXT SEARCH CONFIGURATION app.mine (PARSER = app.my_parser);
CREATE TEXT SEARCH CONFIGURATION app."Deutsch, mit ""allem""" (COPY = german);
ALTER TEXT SEARCH CONFIGURATION app.mine ADD MAPPING FOR asciiword, word WITH app.plain, app."Snow ball", simple;
ALTER TEXT SEARCH CONFIGURATION app.mine ADD MAPPING FOR numword, email, url WITH english_stem;
ALTER TEXT SEARCH CONFIGURATION app."Deutsch, mit ""allem""" DROP MAPPING FOR float;
ALTER TEXT SEARCH CONFIGURATION app."Deutsch, mit ""allem""" ALTER MAPPING REPLACE german_stem WITH app."Snow ball";
COMMENT ON TEXT SEARCH PARSER app.my_parser IS 'a parser';
COMMENT ON TEXT SEARCH TEMPLATE app.my_template IS 'a template';
COMMENT ON TEXT SEARCH DICTIONARY app.plain IS 'a dictionary';
COMMENT ON TEXT SEARCH CONFIGURATION app.mine IS 'a configuration';
ALTER TEXT SEARCH DICTIONARY app.plain OWNER TO lifeboat_owner;
ALTER TEXT SEARCH CONFIGURATION app.mine OWNER TO lifeboat_writer;
