"""Patterns of what an operating system says in its own language, or as a number: data.

Engines pass on the system's words; on a Windows that is not English, often only the number of the
error is readable. Numbers are taken only from where a system's number is named as one.
"""

from __future__ import annotations

_WINDOWS = r"\b(?:winerror|win32 error|win32exception(?: \(0x\w+\))?|getlasterror(?:\(\))?)\W{0,4}"
_ANY = r"\b(?:winerror|win32 error|(?:os |dos )?err(?:or|no)(?:/errno)?)\W{0,3}"

NO_MEMORY = (
    # ERROR_COMMITMENT_LIMIT; ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY.
    rf"{_ANY}1455\b|{_WINDOWS}(?:8|14|1450)\b"
    r"|auslagerungsdatei ist zu klein|nicht gen(?:ü|ue)gend (?:\w+)?(?:arbeits)?speicher\b"
    r"|m(?:é|e)moire insuffisante|fichier de pagination est (?:trop petit|insuffisant)"
    r"|memoria insuficiente|suficiente(?:s recursos de)? (?:memoria|mem(?:ó|o)ria)\b"
    r"|archivo de paginaci(?:ó|o)n es demasiado peque|mem(?:ó|o)ria insuficiente"
    r"|memoria (?:\w+ )?insufficiente|file di paging (?:\w+ ){0,2}insufficient"
    r"|недостаточно (?:\w+ ){0,2}памяти|файл подкачки слишком мал"
    r"|(?:内存|显存|記憶體|内存资源|可用内存)不足|[页頁]面文件太小|分页文件太小"
    r"|メモリ(?:が|ー)?\s?(?:不足|が足りません)|ページング ?ファイルが小さすぎ|메모리(?:가)? ?부족"
)
"""No memory."""

BROKEN_PART = (
    # A module that is missing, of another machine or fails to start; a policy, a full disk.
    rf"{_ANY}(?:1114|4551|1260)\b|{_WINDOWS}(?:126|127|193|216|225|226|112|39)\b"
    r"|\bos error (?:112|126|127|193|216|225)\b"
    r"|angegebene modul wurde nicht gefunden|module sp(?:é|e)cifi(?:é|e) est introuvable"
    r"|encontrar el m(?:ó|o)dulo especificado|m(?:ó|o)dulo especificado n(?:ã|a)o"
    r"|не найден указанный модуль|找不到指定的模[块組组]|指定されたモジュールが見つかりません"
    r"|有效的?\s?(?:win32\s?)?应用程序|zul(?:ä|ae)ssige win32|application win32 valide"
    r"|aplicaci(?:ó|o)n win32 v(?:á|a)lida|не является приложением win32"
    r"|初始化例程失败|zu wenig speicherplatz|speicherplatz auf dem datentr(?:ä|ae)ger"
    r"|espace (?:disque )?insuffisant|espacio (?:\w+ ){0,2}insuficiente"
    r"|недостаточно места на диске|磁[盘碟](?:空间)?(?:不足|已满)|ディスクに十分な空き領域"
)
"""A part that is missing, a policy, a full disk."""

NO_SUCH_FILE = (
    r"angegebene (?:datei|pfad) (?:nicht (?:finden|gefunden)|wurde nicht)"
    r"|(?:fichier|chemin) sp(?:é|e)cifi(?:é|e)\b|encontrar (?:el|la) (?:archivo|ruta) especificad"
    r"|encontrar o (?:arquivo|caminho) especificado|не удается найти указанный (?:файл|путь)"
    r"|找不到指定的(?:文件|路[径徑]|檔案)|指定された(?:ファイル|パス)が見つかりません"
    r"|aucun fichier ou dossier|datei oder verzeichnis nicht gefunden|no existe el (?:archivo|fich)"
    r"|没有那个文件|нет такого файла"
)
"""No such file."""

NO_CONNECTION = (
    rf"{_ANY}(?:100(?:5[0-4]|6[0145])|1100[1-4])\b|\berrno\W{{0,2}}(?:104|111|61|54|113|101)\b"
    r"|verbindung (?:wurde )?(?:verweiger|abgelehnt)|zielcomputer die verbindung"
    r"|connexion (?:a (?:é|e)t(?:é|e) )?refus(?:é|e)e|conexi(?:ó|o)n rechazada"
    r"|deneg(?:ó|o) expresamente|conex(?:ã|a)o recusada|recusou ativamente|connessione rifiutata"
    r"|отверг запрос на подключение|соединени\w+ (?:отклонено|отказано)|в соединении отказано"
    r"|积极拒绝|连接被(?:拒绝|重置)|拒绝连接|対象のコンピューターによって拒否|接続(?:が|を)拒否"
    r"|연결을 거부"
)
"""No connection."""
